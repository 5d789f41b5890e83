"""Which network is a candidate: the better one of the workspace, or that of a fine-tune run."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

from captchalab import files, statistics
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind
from captchalab.statistics import Proportion
from captchalab.tracking import models, runs
from captchalab.tracking.store import Store
from captchalab.training.journal import Journal


class Candidate(NamedTuple):
    """A logged model, and the fine-tune run that logged it."""

    run: Any  # MLflow's
    model_id: str

    @property
    def run_id(self) -> str:
        return str(self.run.info.run_id)

    @property
    def name(self) -> str:
        return f"run {self.run_id}"


class Tested(NamedTuple):
    """What a network achieved on the test split: stays with its version, and decides nothing."""

    exact: Proportion
    digest: str  # of that split


def find(project: Project, store: Store, client: Any, run_id: str | None) -> Candidate:
    """The network of a fine-tune run; without one, the better network of the workspace.

    The workspace's network is logged first where MLflow does not have it yet.

    Raises:
        UserError: there is no such network.
    """
    from mlflow.exceptions import MlflowException

    if run_id is None:
        kind = better_of_workspace(project)
        model_id = models.log_test(project, kind, store, again=False)
        return Candidate(client.get_run(runs.sync(project.stage(kind, "finetune"), store)), model_id)
    try:
        run = client.get_run(run_id)
    except MlflowException:
        raise UserError(
            f"{run_id} is no run of {store}: take the id from its page in MLflow, or from `captchalab lineage`."
        ) from None
    found = models.model_of(client, run, project)
    if found is None:
        raise UserError(
            f"Run {run_id} ({run.info.run_name}) has no model: name a fine-tune run that was tested (`dvc repro`)."
        )
    return Candidate(run, found)


def better_of_workspace(project: Project) -> Kind:
    """The fine-tuned network that is better on the valid split (never the test split): exact match, ties by loss.

    Raises:
        UserError: there is none, or one was not tested and would be passed over.
    """
    scores = {}
    for kind in KINDS:
        journal = Journal(project.stage(kind, "finetune"))
        if not journal.begun:
            continue
        if not (project.report(kind) / "metrics.json").exists():
            raise UserError(
                f"{journal.folder} holds a network that was not tested: run `dvc repro`, or name a run with --run."
            )
        best = journal.about["outcome"]["best"]
        scores[kind] = (best["val/exact"], -best["val/loss"])
    if not scores:
        raise UserError(
            f"{project.root} holds no fine-tuned network to promote: run `dvc repro`, or name one with --run."
        )
    return max(scores, key=lambda kind: scores[kind])


def tested(predictions: Path, split: Path) -> Tested:
    """What was logged with a model: its predictions.csv, and the meta.json of the split they are of."""
    with predictions.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    exact = statistics.exact([row["truth"] for row in rows], [row["prediction"] for row in rows])
    return Tested(exact, files.read_json(split)["digest"])
