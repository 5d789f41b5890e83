"""A network of results/ in the place of stage 1, so that the chain fine-tunes it.

    start_from: {ctc: results/best}     in params.yaml; `dvc repro` then trains no stage 1 of that network

models/<kind>/train/ becomes the kept network and its whole curve, both stages of it: what comes after counts the
images it has seen, and its run says whose training it continues.
"""

import json
import shutil
import uuid

from captchalab import files
from captchalab.errors import UserError
from captchalab.params import STAGES, Params
from captchalab.project import Project
from captchalab.reading.captcha import Kind
from captchalab.results import kept
from captchalab.training.journal import Epoch, Journal

COUNTED = ("epoch", "step", "images_seen")


def take_over(project: Project, params: Params, kind: Kind, tags: dict[str, str]) -> kept.Network:
    """Write the network that start_from.<kind> names to models/<kind>/train.

    Args:
        tags: of the stage's run, as `train` has them.

    Raises:
        UserError: there is no such network, or it is not the one that params.yaml describes.
    """
    network = kept.network(project, f"{params.start(kind).rstrip('/')}/{kind}")
    source = network.kept.project
    stages = [Journal(source.stage(kind, stage)) for stage in STAGES]
    about = stages[-1].about
    _check_described(network, params, about["params"])
    with files.atomic_write(project.stage(kind, "train")) as out:
        out.mkdir()
        shutil.copyfile(source.model(kind), out / "model.keras")
        journal = Journal(out)
        files.write_json(out / "run.json", {"run_id": None})
        journal.write(_whole_curve([stage.epochs() for stage in stages]), about["device"])
        outcome = about["outcome"]
        described = {
            "name": f"{kind} train",
            "stage": "train",
            "experiment": params.tracking.experiment,
            "tags": {
                **about["tags"],
                **{key: value for key, value in tags.items() if key.startswith("dvc_")},
                "stage": "train",
                "start_from": network.name,
                "start_from_journal_id": about["id"],
            },
            # the best epoch counts from the beginning of stage 1
            "outcome": {**outcome, "best_epoch": len(stages[0].epochs()) + outcome["best_epoch"]},
        }
        files.write_json(out / "journal.json", {**about, "id": uuid.uuid4().hex, **described})
    return network


def _check_described(network: kept.Network, params: Params, built_with: dict[str, object]) -> None:
    """Refuse a network of other captchas, or of another architecture, than params.yaml has."""
    if network.captcha != params.captcha:
        raise UserError(
            f"start_from.{network.kind} = {params.start(network.kind)} reads other captchas than params.yaml "
            "describes: set captcha as its params.yaml has it, or start from train."
        )
    wanted = json.loads(json.dumps(params.network(network.kind).model_dump()))
    for key, value in wanted.items():
        if built_with.get(key, value) != value:
            raise UserError(
                f"start_from.{network.kind} = {params.start(network.kind)} was built with models.{network.kind}.{key} "
                f"= {built_with[key]}, params.yaml has {value}: set it so, or start from train."
            )


def _whole_curve(stages: list[list[Epoch]]) -> list[Epoch]:
    """The epochs of both stages as those of one: each stage counts on from where the one before it ended."""
    joined: list[Epoch] = []
    for epochs in stages:
        before = {key: joined[-1].figures[key] if joined else 0 for key in COUNTED}
        joined += [
            epoch._replace(figures={**epoch.figures, **{key: before[key] + epoch.figures[key] for key in COUNTED}})
            for epoch in epochs
        ]
    return joined
