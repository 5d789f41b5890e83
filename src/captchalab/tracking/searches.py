"""A search in MLflow: an experiment per study, a run for the search, and a child run per trial.

What is logged here waits in an outbox: searching goes on, whatever MLflow does. Trials are known by their
numbers, so that several processes, and a search that goes on after a kill, log to the same runs.
"""

import contextlib
import getpass
import tempfile
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.reading.captcha import Kind
from captchalab.tracking import search_view
from captchalab.tracking.curve import Point, curve
from captchalab.tracking.outbox import Outbox
from captchalab.tracking.runs import BATCH
from captchalab.tracking.store import Store, experiment_id
from captchalab.training.journal import Epoch, Journal

PARENT = "mlflow.parentRunId"
STATUSES = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAIL": "FAILED"}  # MLflow's for Optuna's states
KEPT = "it is logged when MLflow answers again, while this search runs"
EXACT = "val/exact"


class SearchRuns:
    """MLflow runs of one search: a parent run per study, a child run per trial.

    No method raises or waits; `end` waits until all is logged, or a last attempt has failed.

    Args:
        store: where the runs are.
        study: the study's name; the experiment has the same.
        tags: of every run. `study_id`, where given, tells this study from an older one of its name.
    """

    def __init__(self, store: Store, study: str, kind: Kind, tags: dict[str, str]) -> None:
        self.store, self.study = store, study
        self.tags = {**tags, "kind": kind, "study": study, "mlflow.user": getpass.getuser()}
        self.outbox = Outbox(store, KEPT)
        self.experiment = ""
        self.run_id: str | None = None  # of the parent

    @classmethod
    def open(cls, project: Project, study: str, kind: Kind, tags: dict[str, str]) -> "SearchRuns":
        """The runs of a study: those it has already, or new ones."""
        runs = cls(Store.of(project), study, kind, tags)
        started = now()
        runs.outbox.add(lambda client: runs._open(client, started))
        return runs

    def trial(self, number: int, values: dict[str, Any], retry_of: int | None = None) -> "TrialRun":
        """The run of a trial: a new one, or the one that it has already.

        Args:
            number: the trial's in its study.
            values: its parameters, named as in params.yaml.
            retry_of: the number of the trial that died and is run again; its run is closed.
        """
        run, started = TrialRun(self, number), now()
        if retry_of is not None:
            self._close(lambda other: other == retry_of, f"its worker died; trial {number} runs it again", started)
        self.outbox.add(lambda client: run._open(client, values, retry_of, started))
        return run

    def close_stale(self, running: Collection[int], why: str) -> None:
        """Close the runs that are RUNNING in MLflow of trials that are not: their workers have died.

        Args:
            running: the numbers of the trials that run now; trials that begin later are left alone.
            why: the reason given on a closed run.
        """
        kept = set(running)
        self._close(lambda number: number not in kept, why, now())

    def best(self, number: int, score: float, values: dict[str, Any]) -> None:
        """The best trial so far, on the parent: its number, score and parameters."""
        named = {f"best/{name}": str(values[key]) for key, name in short_names(values).items()}
        at = now()

        def write(client: Any) -> None:
            metrics = [_metric("best/score", score, at, number)]
            client.log_batch(self.run_id, metrics, tags=_tags({"best_trial": str(number), **named}))

        self.outbox.add(write)

    def pictures(self, folder: Path) -> None:
        """The PNGs of a folder as artifacts of the parent, `plots/`; read now, logged later."""
        with contextlib.suppress(OSError):
            contents = {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}

            def write(client: Any) -> None:
                with tempfile.TemporaryDirectory() as copy:
                    for name, content in contents.items():
                        (Path(copy) / name).write_bytes(content)
                    client.log_artifacts(self.run_id, copy, "plots")

            self.outbox.add(write)

    def applied(self, number: int) -> None:
        """Tag a trial, and the parent, with the time at which its values were taken into params.yaml."""
        at = datetime.now(UTC).isoformat(timespec="seconds")

        def write(client: Any) -> None:
            trial = self._search(client, f"tags.`{PARENT}` = '{self.run_id}'", f"tags.trial = '{number}'")
            client.log_batch(self.run_id, tags=_tags({"applied": at, "applied_trial": str(number)}))
            for run in trial:
                client.log_batch(run.info.run_id, tags=_tags({"applied": at}))

        self.outbox.add(write)

    def end(self, status: str) -> None:
        """Close the parent.

        Args:
            status: MLflow's: FINISHED, KILLED or FAILED. Another worker's next trial opens it again.
        """
        at = now()
        self.outbox.add(lambda client: client.set_terminated(self.run_id, status, end_time=at))
        self.outbox.end()

    def _open(self, client: Any, started: int) -> None:
        """Find the experiment and the parent, or make them; of two made by two machines the older is the one."""
        self.experiment = experiment_id(client, self.store, self.study, search_view.DESCRIPTION)
        with self.store.locked():
            self.run_id = self._parent(client)
            if self.run_id is None:
                tags = {**self.tags, "stage": "search", "mlflow.source.name": f"captchalab search {self.tags['kind']}"}
                made = client.create_run(self.experiment, started, tags, self.study).info.run_id
                self.run_id = self._parent(client) or made
                if self.run_id != made:
                    client.delete_run(made)
        client.update_run(self.run_id, status="RUNNING")

    def _parent(self, client: Any) -> str | None:
        wanted = {"stage": "search", "study": self.study}
        if "study_id" in self.tags:
            wanted["study_id"] = self.tags["study_id"]
        found = self._search(client, *(f"tags.{key} = '{value}'" for key, value in wanted.items()))
        return min(found, key=lambda run: (run.info.start_time, run.info.run_id)).info.run_id if found else None

    def _close(self, chosen: Callable[[int], bool], why: str, begun_by: int) -> None:
        """Close the RUNNING runs of the trials whose numbers are chosen."""

        def write(client: Any) -> None:
            running = self._search(client, "attributes.status = 'RUNNING'", f"tags.`{PARENT}` = '{self.run_id}'")
            for run in running:
                if chosen(int(run.data.tags["trial"])) and run.info.start_time <= begun_by:
                    client.log_batch(run.info.run_id, tags=_tags({"state": "FAIL", "reason": why}))
                    client.set_terminated(run.info.run_id, "KILLED", end_time=begun_by)

        self.outbox.add(write)

    def _search(self, client: Any, *conditions: str) -> list[Any]:
        return list(client.search_runs([self.experiment], " and ".join(conditions)))


class TrialRun:
    """The run of one trial, made by `SearchRuns.trial`."""

    def __init__(self, runs: SearchRuns, number: int) -> None:
        self.runs, self.number = runs, number
        self.run_id: str | None = None  # until MLflow has answered
        self.points: list[Point] = []
        self.logged_steps: set[int] = set()

    def epochs(self, train: Journal, finetune: Journal | None = None) -> None:
        """Log the epochs that are not logged yet; the step of a metric is the images seen over both stages."""
        stages = [_epochs(train), *([_epochs(finetune)] if finetune else [])]
        self.points = curve(stages)
        self.runs.outbox.add(self._log_curve)

    def end(self, state: str, reason: str, score: float | None, attributes: dict[str, Any]) -> None:
        """Close the run.

        Args:
            state: Optuna's: COMPLETE, PRUNED or FAIL.
            reason: why it was pruned or failed; may be empty.
            score: of a trial that is complete.
            attributes: the trial's user attributes: numbers become metrics, texts tags.
        """
        at = now()
        numbers = {key: value for key, value in attributes.items() if _is_number(value)}
        texts = {key: str(value) for key, value in attributes.items() if key not in numbers and key != "run_id"}
        if score is not None:
            numbers["score"] = score
        if self.points:
            numbers[f"best/{EXACT}"] = max(point.metrics[EXACT] for point in self.points)
            numbers.pop("images_seen", None)  # the curve has it
        step = self.points[-1].images_seen if self.points else 0

        def write(client: Any) -> None:
            self._log_curve(client)
            metrics = [_metric(key, value, at, step) for key, value in numbers.items()]
            client.log_batch(self.run_id, metrics, tags=_tags({**texts, "state": state, "reason": reason}))
            client.set_terminated(self.run_id, STATUSES[state], end_time=at)

        self.runs.outbox.add(write)

    def _open(self, client: Any, values: dict[str, Any], retry_of: int | None, started: int) -> None:
        """Find the trial's run, or make it: a run of its number with other values is another study's."""
        runs = self.runs
        named = {name: str(values[key]) for key, name in short_names(values).items()}
        found = runs._search(client, f"tags.`{PARENT}` = '{runs.run_id}'", f"tags.trial = '{self.number}'")
        mine = [run.info.run_id for run in found if run.data.params == named]
        if mine:
            self.run_id = mine[0]
            self.logged_steps = {metric.step for metric in client.get_metric_history(self.run_id, EXACT)}
        else:
            tags = {**runs.tags, PARENT: runs.run_id, "stage": "trial", "trial": str(self.number)}
            tags |= {"retry_of": str(retry_of)} if retry_of is not None else {}
            made = client.create_run(runs.experiment, started, tags, f"trial {self.number}")
            self.run_id = str(made.info.run_id)
            client.log_batch(self.run_id, params=_params(named))
        client.log_batch(self.run_id, tags=_tags({"state": "RUNNING"}))
        client.update_run(self.run_id, status="RUNNING")
        client.update_run(runs.run_id, status="RUNNING")  # another worker may have ended it
        search_view.save(client, runs.experiment, list(named))

    def _log_curve(self, client: Any) -> None:
        new = [point for point in self.points if point.images_seen not in self.logged_steps]
        metrics = [
            _metric(key, value, _ms(datetime.fromisoformat(point.ended_at)), point.images_seen)
            for point in new
            for key, value in point.metrics.items()
        ]
        for start in range(0, len(metrics), BATCH):
            client.log_batch(self.run_id, metrics[start : start + BATCH])
        self.logged_steps |= {point.images_seen for point in new}


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Parameters as tables and pictures name them: without the kind, and without `models`; {key: name}.

    `models.ctc.rnn_size` is rnn_size, `train.ctc.learning_rate` train.learning_rate. Two keys that would
    have one name keep theirs.
    """
    short = {
        key: ".".join(word for word in key.split(".") if word not in ("models", "cnn", "ctc")) or key for key in keys
    }
    taken = list(short.values())
    return {key: name if taken.count(name) == 1 else key for key, name in short.items()}


def now() -> int:
    """Milliseconds since 1970, as MLflow has times."""
    return _ms(datetime.now(UTC))


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _epochs(journal: Journal) -> list[Epoch]:
    """None of a stage that has not begun, or whose journal is being written anew."""
    with contextlib.suppress(UserError, OSError, KeyError, TypeError, ValueError):
        return journal.epochs() if journal.begun else []
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _metric(key: str, value: float, at: int, step: int) -> Any:
    from mlflow.entities import Metric

    return Metric(key, round(value, 5), at, step)


def _params(named: dict[str, str]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(key, value) for key, value in named.items()]


def _tags(tags: dict[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items() if value]
