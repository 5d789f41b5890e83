"""What accuracy costs: exact match against images seen, seconds of training, and the size of the train split.

    captchalab cost                                   from the journals and reports that there are
    captchalab cost --train-images 30000              first trains with a train split of that size (DVC experiment)

An epoch's figure is of the valid split; the test split is read once, after the last: the one point with an interval.
Networks kept in results/ that read the same captchas are in the picture too. Writes results/cost.json and cost.png.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from captchalab import files
from captchalab.errors import UserError
from captchalab.params import STAGES, Params
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind
from captchalab.results import experiments, kept, plots
from captchalab.results.experiments import Experiment
from captchalab.statistics import wilson
from captchalab.tracking.curve import curve
from captchalab.training.journal import Journal

SIZE = "splits.train.images"
# The public reference's own figures: images its training saw, captchas of its test that were right, and of how many.
REFERENCE: dict[Kind, tuple[int, int, int]] = {"cnn": (3_710_000, 12_578, 12_800), "ctc": (5_380_000, 2_540, 2_560)}
EXACT = ("exact", "exact_low", "exact_high", "n")


def measure(project: Project, params: Params, sizes: Sequence[int], jobs: int) -> dict[str, Any]:
    """Train what is missing of `sizes`, and write the figures and the picture; returns the figures.

    Raises:
        UserError: an experiment failed, or there is no trained network.
    """
    digest = experiments.digest(params, but=SIZE)
    experiments.run(project, [Experiment(f"size-{size}-{digest}", {SIZE: size}) for size in sizes], jobs)
    folders = [kept.load(project, name) for name in kept.names(project)]
    readers = [one for folder in folders for one in folder.networks if one.captcha == params.captcha]
    places = [(one.kept.project, one.kind, one.kept.name) for one in readers]
    places += [(project, kind, "of the workspace") for kind in KINDS]
    networks: dict[str, Any] = {}
    for place in places:
        if found := trained(*place):
            networks.setdefault(found["id"], found)  # the workspace's own may be kept already
    if not networks:
        raise UserError(f"{project.root} holds no tested network: run `dvc repro` first.")
    table = {
        "format": 1,
        "networks": list(networks.values()),
        "sizes": sizes_trained(project, params, digest),
        "reference": [
            {"kind": kind, "images_seen": seen, **wilson(right, n).as_metrics("exact")}
            for kind, (seen, right, n) in REFERENCE.items()
        ],
    }
    files.write_json(project.results / "cost.json", table)
    with files.atomic_write(project.results / "cost.png") as picture:
        plots.cost(table, picture)
    return table


def trained(project: Project, kind: Kind, name: str) -> dict[str, Any] | None:
    """A tested network's curve over both stages and its test figure; None where there is none."""
    metrics = project.report(kind) / "metrics.json"
    stages = [Journal(project.stage(kind, stage)) for stage in STAGES]
    if not metrics.exists() or not all(stage.begun for stage in stages):
        return None
    epochs = [stage.epochs() for stage in stages]
    seconds = accumulate(epoch.seconds for stage in epochs for epoch in stage)
    return {
        "id": stages[-1].about["id"],
        "name": name,
        "kind": kind,
        "device": stages[0].about["device"],
        "epochs": [
            {"images_seen": point.images_seen, "seconds": round(passed, 1), "val/exact": point.metrics["val/exact"]}
            for point, passed in zip(curve(epochs), seconds, strict=True)
        ],
        "test": {key: value for key, value in files.read_json(metrics).items() if key in EXACT},
    }


def sizes_trained(project: Project, params: Params, digest: str) -> list[dict[str, Any]]:
    """The test figure of each kind at each size of the train split that has been trained with."""
    found: dict[int, Any] = {
        int(name.split("-")[1]): one.read_json for name, one in experiments.finished(project, "size-", digest).items()
    }
    if experiments.is_up_to_date(project):
        found[params.splits.train.images] = lambda path: files.read_json(project.root / path)
    rows = []
    for size, read in sorted(found.items()):
        for kind in KINDS:
            metrics = read(f"reports/{kind}/metrics.json")
            rows.append({"train_images": size, "kind": kind, **{key: metrics[key] for key in (*EXACT, "images_seen")}})
    return rows
