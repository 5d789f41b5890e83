"""What to train, and how far it has come: which epoch is the best, and when to stop. Pure decisions."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

from captchalab.params import NetworkParams, Params, Precision, StageName, StageParams, Weights
from captchalab.reading.captcha import CaptchaParams, Kind


class Task(NamedTuple):
    """What to train."""

    name: StageName
    kind: Kind
    captcha: CaptchaParams
    network: NetworkParams
    stage: StageParams
    seed: int
    experiment: str
    workers: int = 0
    weights: Weights | None = None  # of the characters in the texts it learns from; none: uniform
    precision: Precision = "float32"

    @classmethod
    def of(cls, params: Params, name: StageName, kind: Kind, experiment: str | None = None) -> Self:
        """A stage as params.yaml has it, logged to its experiment or to another."""
        return cls(
            name,
            kind,
            params.captcha,
            params.network(kind),
            params.stage(name, kind),
            params.seed,
            experiment or params.tracking.experiment,
            params.runtime.workers,
            params.splits.train.weights,
            params.runtime.precision,
        )

    @property
    def steps(self) -> int:
        return self.stage.epochs * self.stage.steps_per_epoch


@dataclass
class Progress:
    """How far a stage has come; part of its checkpoint."""

    epoch: int = 0
    best_epoch: int = 0
    best: tuple[float, float] = (-math.inf, -math.inf)  # compared in this order, larger is better
    epochs_without_better: int = 0
    has_read: bool = False  # off the plateau: at least one text of the valid split was right once

    def count(self, metrics: dict[str, float], best_by: str) -> bool:
        """Take in an epoch's metrics; True if it is the best so far."""
        self.epoch += 1
        self.has_read = self.has_read or metrics["val/exact"] > 0
        exact, loss = metrics["val/exact"], metrics["val/loss"]
        score = (exact, -loss) if best_by == "exact" else (-loss, 0.0)
        if score > tuple(self.best):
            self.best, self.best_epoch, self.epochs_without_better = score, self.epoch, 0
            return True
        # on the plateau nothing can get better: patience starts with the first text that is right
        self.epochs_without_better += self.has_read
        return False

    def ended(self, stage: StageParams) -> str | None:
        """Why training ends here, if it does."""
        if self.epoch >= stage.epochs:
            return f"all {stage.epochs} epochs"
        if self.epochs_without_better >= stage.patience_epochs:
            return f"{self.epochs_without_better} epochs without a better one"
        return None
