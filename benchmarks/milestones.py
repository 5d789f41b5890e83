"""When each network first read 90, 95 and 98 % of the valid split, from the journals of a finished chain.

.venv/bin/python benchmarks/milestones.py        after `make repro`; at once
"""

import datetime
from pathlib import Path
from typing import NamedTuple

import harness

from captchalab.errors import UserError
from captchalab.params import STAGES
from captchalab.project import Project
from captchalab.reading.captcha import KINDS
from captchalab.training.journal import Journal

TARGETS = (0.90, 0.95, 0.98)
ABOUT = """What it took until the exact match on the valid split, measured after every epoch of both stages, was
first at least as high. Minutes are those of the training steps; `with validation` is by the clock, from a stage's
start to the epoch's end. A cell that is empty was not reached. The public reference publishes no such times; after
its first epoch of 128,000 images its CNN read about 81 % and its CTC network about 83 %."""


class Point(NamedTuple):
    """An epoch, counted over both stages."""

    exact: float
    images: int
    train_s: float
    clock_s: float


def curve(stages: list[Path]) -> list[Point]:
    """The epochs of a network's stages, one after the other.

    Raises:
        UserError: a stage has no journal.
    """
    points = [Point(0.0, 0, 0.0, 0.0)]
    for folder in stages:
        journal = Journal(folder)
        if not journal.begun:
            raise UserError(f"{folder} has no journal: train it with `make repro`, or fetch it with `dvc pull`.")
        begun, before = datetime.datetime.fromisoformat(journal.about["started_at"]), points[-1]
        train_s = before.train_s
        for epoch in journal.epochs():
            train_s += epoch.seconds
            clock_s = (datetime.datetime.fromisoformat(epoch.ended_at) - begun).total_seconds()
            images = before.images + int(epoch.figures["images_seen"])
            points.append(Point(epoch.figures["val/exact"], images, train_s, before.clock_s + clock_s))
    return points[1:]


def first(points: list[Point], target: float) -> Point | None:
    """The first epoch at which the target is reached."""
    return next((point for point in points if point.exact >= target), None)


def table(curves: dict[str, list[Point]]) -> harness.Table:
    rows: dict[str, list[harness.Figures]] = {}
    for target in TARGETS:
        for name, points in curves.items():
            reached = first(points, target)
            rows[f"{target:.0%} {name}"] = [_figures(reached) if reached else {}]
    best = ", ".join(f"{name} {max(point.exact for point in points):.2%}" for name, points in curves.items())
    return harness.Table("Time to an exact match", ABOUT, rows, notes=[f"Best epoch: {best}."])


def measure(quick: bool) -> harness.Table:
    project = Project.find()
    curves = {kind.upper(): curve([project.stage(kind, stage) for stage in STAGES]) for kind in KINDS}
    devices = {Journal(project.stage(kind, "train")).about["device"] for kind in KINDS}
    found = table(curves)
    found.notes.append(f"Trained on {', '.join(sorted(devices))}.")
    return found


def _figures(point: Point) -> harness.Figures:
    return {
        "images seen": point.images,
        "minutes of training": point.train_s / 60,
        "with validation": point.clock_s / 60,
        "val/exact then, %": 100 * point.exact,
    }


if __name__ == "__main__":
    harness.main(measure)
