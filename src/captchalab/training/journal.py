"""Each epoch on disk, before anything else hears of it: MLflow's runs are synced from a journal.

A journal is a folder with four files:
    journal.json   what was run: an id, names, parameters, tags; once it has ended, its outcome
    history.csv    a row per epoch: metrics that are the same in every run
    timing.json    seconds and images/s of each epoch, and the device: what differs between runs
    run.json       the MLflow run it was synced to, or null; written by `tracking` alone
"""

import csv
import io
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from captchalab import files
from captchalab.errors import UserError

FILES = ("journal.json", "history.csv", "timing.json", "run.json")
HISTORY = (
    "epoch",
    "step",
    "images_seen",
    "learning_rate",  # the highest of the epoch
    "train/loss",
    "val/loss",
    "val/exact",
    "val/exact_low",
    "val/exact_high",
    "val/cer",
)


class Epoch(NamedTuple):
    figures: dict[str, float]  # the columns of history.csv
    seconds: float  # of training, without validation
    images_per_s: float
    ended_at: str  # ISO time


class Journal:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def begin(cls, folder: Path, about: dict[str, Any]) -> "Journal":
        """A new journal; `about` holds name, kind, stage, experiment, device, params and tags."""
        journal = cls(folder)
        files.write_json(folder / "run.json", {"run_id": None})
        journal.write([], about["device"])
        files.write_json(folder / "journal.json", {"id": uuid.uuid4().hex, "started_at": _now(), **about})
        return journal

    @property
    def begun(self) -> bool:
        """Whether it exists; journal.json is written last."""
        return (self.folder / "journal.json").exists()

    @property
    def about(self) -> dict[str, Any]:
        return files.read_json(self.folder / "journal.json")

    @property
    def run_id(self) -> str | None:
        return files.read_json(self.folder / "run.json")["run_id"]

    @property
    def ended_at(self) -> str:
        """ISO time of its end; of its last epoch where it was stopped; of its start where it has none."""
        about = self.about
        epochs = self.epochs()
        return about.get("ended_at") or (epochs[-1].ended_at if epochs else about["started_at"])

    def epochs(self) -> list[Epoch]:
        timing = files.read_json(self.folder / "timing.json")["epochs"]
        rows = read_history(self.folder / "history.csv")
        # a kill between the two files leaves one row more in one of them
        return [
            Epoch(row, t["seconds"], t["images_per_s"], t["ended_at"]) for row, t in zip(rows, timing, strict=False)
        ]

    def holds(self, epoch: int) -> bool:
        """Whether it can be read, and has the epochs up to this one."""
        try:
            return self.begun and bool(self.about["id"]) and len(self.epochs()) >= epoch
        except (UserError, KeyError, TypeError, ValueError, OSError):
            return False

    def add(self, metrics: dict[str, float], seconds: float, images: int) -> None:
        epochs = [*self.epochs(), Epoch(metrics, round(seconds, 2), round(images / seconds, 1), _now())]
        self.write(epochs, self.about["device"])

    def go_back_to(self, epoch: int) -> None:
        """Drop the epochs after this one: training resumes there."""
        self.write(self.epochs()[:epoch], self.about["device"])

    def end(self, outcome: dict[str, Any]) -> None:
        about = {**self.about, "ended_at": _now(), "outcome": outcome}
        files.write_json(self.folder / "journal.json", about)

    def write(self, epochs: list[Epoch], device: str) -> None:
        """Make these its epochs: history.csv and timing.json."""
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
        writer.writeheader()
        writer.writerows(epoch.figures for epoch in epochs)
        files.write_text(self.folder / "history.csv", text.getvalue())
        timing = {
            "device": device,
            "train_s": round(sum(epoch.seconds for epoch in epochs), 1),
            "epochs": [{"seconds": e.seconds, "images_per_s": e.images_per_s, "ended_at": e.ended_at} for e in epochs],
        }
        files.write_json(self.folder / "timing.json", timing)


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a history.csv; epoch, step and images_seen are whole numbers."""
    with path.open(newline="") as lines:
        return [
            {key: int(value) if key in HISTORY[:3] else float(value) for key, value in row.items()}
            for row in csv.DictReader(lines)
        ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
