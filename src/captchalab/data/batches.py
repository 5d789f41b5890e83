"""What a stage trains on: batches in a seeded order, from a split on disk or drawn on the fly.

Step k of a stage is always the same batch, so a stage that resumes after a kill sees what it would
have seen.
"""

import hashlib
import json
from collections.abc import Generator, Iterator
from importlib.metadata import version
from typing import NamedTuple, Protocol

import numpy as np

from captchalab.data.dataset import SplitData
from captchalab.data.rendering import draw_batch, prepare
from captchalab.data.workers import in_order
from captchalab.params import StageName, Weights
from captchalab.reading.captcha import CaptchaParams

# Fine-tuning by `stream` continues with images that training has not seen.
STREAM_STARTS_AT: dict[StageName, int] = {"train": 0, "finetune": 1_000_000_000}


class Batch(NamedTuple):
    images: np.ndarray  # uint8 (B, H, W, C)
    labels: np.ndarray  # uint8 (B, L)


class Source(Protocol):
    """Where a stage's batches come from: step k is always the same batch."""

    digest: str  # of everything that shapes the batches

    def batches(self, first_step: int, steps: int) -> Iterator[Batch]: ...


class Pool:
    """The images of a split, shuffled again for each pass over them, in a seeded order."""

    def __init__(self, data: SplitData, batch_size: int, seed: int, stage: StageName) -> None:
        self.data, self.batch_size = data, batch_size
        self.key = (seed, list(STREAM_STARTS_AT).index(stage))
        self.digest = data.meta["digest"]

    def rows(self, first_step: int, steps: int) -> Iterator[np.ndarray]:
        """Where the images of each step's batch are in the split, (B,)."""
        n = len(self.data.images)
        order, number = np.empty(0, dtype=np.int64), -1
        for step in range(first_step, first_step + steps):
            places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            rows = np.empty_like(places)
            for pass_ in np.unique(places // n):
                if pass_ != number:
                    order, number = np.random.default_rng((*self.key, int(pass_))).permutation(n), pass_
                here = places // n == pass_
                rows[here] = order[places[here] % n]
            rows.sort()  # reads the disk in one direction; order within a batch means nothing
            yield rows

    def batches(self, first_step: int, steps: int) -> Iterator[Batch]:
        for rows in self.rows(first_step, steps):
            yield Batch(self.data.images[rows], self.data.labels[rows])


class Stream:
    """Fresh images, drawn ahead by worker processes: image i is the train split's image i.

    Args:
        workers: 0 takes one per core; with 1 they are drawn in this process, when they are read.
        weights: of the characters in the texts; 1 where none is named.
    """

    def __init__(
        self,
        captcha: CaptchaParams,
        batch_size: int,
        seed: int,
        stage: StageName,
        workers: int = 0,
        weights: Weights | None = None,
    ) -> None:
        self.weights = weights or {}
        self.captcha, self.batch_size, self.seed = captcha, batch_size, seed
        self.first_image = STREAM_STARTS_AT[stage]
        self.workers = workers
        shaped_by = f"{captcha.model_dump_json()} {seed} {version('captcha')} {version('pillow')}"
        if self.weights:
            shaped_by += f" {json.dumps(self.weights, sort_keys=True)}"
        self.digest = f"stream-{hashlib.sha256(shaped_by.encode()).hexdigest()}"
        self.drawing: Generator[Batch] | None = None

    def batches(self, first_step: int, steps: int) -> Iterator[Batch]:
        prepare(self.captcha)
        first = self.first_image + first_step * self.batch_size
        starts = range(first, first + steps * self.batch_size, self.batch_size)
        calls = ((self.captcha, self.seed, start, start + self.batch_size, self.weights) for start in starts)
        self.drawing = in_order(_draw_batch, calls, self.workers)
        yield from self.drawing

    def close(self) -> None:
        """Draw no more, also where an epoch was left in the middle."""
        if self.drawing is not None:
            self.drawing.close()


def _draw_batch(captcha: CaptchaParams, seed: int, start: int, stop: int, weights: Weights) -> Batch:
    labels, images = draw_batch(captcha, seed, "train", start, stop, weights)
    return Batch(images, labels)
