"""How a network learned: the epochs of both its stages as one curve against the captchas it has seen."""

from typing import NamedTuple

from captchalab.training.journal import Epoch, Journal


class Point(NamedTuple):
    """The metrics of one epoch on the network's curve."""

    images_seen: int  # over both stages
    ended_at: str  # ISO time
    metrics: dict[str, float]


def curve(stages: list[list[Epoch]]) -> list[Point]:
    """The epochs of a network's stages, one after the other, against the captchas seen.

    A stage counts with all it has trained on, as in `network/images_seen`: stage 2 starts from the best
    epoch of stage 1, which need not be its last.
    """
    points: list[Point] = []
    for epochs in stages:
        before = points[-1].images_seen if points else 0
        for epoch in epochs:
            seen = before + int(epoch.figures["images_seen"])
            metrics = {key: value for key, value in epoch.figures.items() if key not in ("epoch", "step")}
            metrics |= {"images_seen": seen, "train/images_per_s": epoch.images_per_s, "epoch_s": epoch.seconds}
            points.append(Point(seen, epoch.ended_at, metrics))
    return points


def continues(journal: Journal, stage_1: Journal) -> bool:
    """Whether a stage started from what this very training of stage 1 wrote, and not from one before it."""
    if not stage_1.begun:
        return False
    tags = journal.about["tags"]
    if "train_journal_id" in tags:
        return bool(tags["train_journal_id"] == stage_1.about["id"])
    return bool(tags.get("train_run_id", "None") == str(stage_1.run_id))  # journals that lack that tag
