"""What a stage is fed with: batches in a seeded order, from the pool on disk or drawn as it goes.

Step k of a stage is always the same batch, so a stage that goes on after a kill sees what it would
have seen.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from typing import NamedTuple, Protocol

import numpy as np

from captchalab.data.dataset import SplitData
from captchalab.data.rendering import draw_random
from captchalab.params import StageName
from captchalab.processes import end_with_parent
from captchalab.reading.alphabet import encode
from captchalab.reading.captcha import CaptchaParams

# Fine-tuning by `stream` goes on with pictures that training has not seen.
STREAM_STARTS_AT: dict[StageName, int] = {"train": 0, "finetune": 1_000_000_000}


class Batch(NamedTuple):
    images: np.ndarray  # uint8 (B, H, W, C)
    labels: np.ndarray  # uint8 (B, L)


class Source(Protocol):
    """Where a stage's batches come from: step k is always the same batch."""

    digest: str  # of everything that shapes the batches

    def batches(self, first_step: int, steps: int) -> Iterator[Batch]: ...


class Pool:
    """The pictures of a split, shuffled anew for each pass over them in a seeded order."""

    def __init__(self, data: SplitData, batch_size: int, seed: int, stage: StageName) -> None:
        self.data, self.batch_size = data, batch_size
        self.key = (seed, list(STREAM_STARTS_AT).index(stage))
        self.digest = data.meta["digest"]

    def batches(self, first_step: int, steps: int) -> Iterator[Batch]:
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
            yield Batch(self.data.images[rows], self.data.labels[rows])


class Stream:
    """Fresh pictures, drawn ahead by worker processes: picture i is the train split's picture i."""

    AHEAD_BATCHES_A_WORKER = 4

    def __init__(self, captcha: CaptchaParams, batch_size: int, seed: int, stage: StageName, workers: int = 0) -> None:
        self.captcha, self.batch_size, self.seed = captcha, batch_size, seed
        self.first_image = STREAM_STARTS_AT[stage]
        self.workers = workers or os.cpu_count() or 1
        shaped_by = f"{captcha.model_dump_json()} {seed} {version('captcha')} {version('pillow')}"
        self.digest = f"stream-{hashlib.sha256(shaped_by.encode()).hexdigest()}"
        self.pool: ProcessPoolExecutor | None = None

    def batches(self, first_step: int, steps: int) -> Iterator[Batch]:
        if self.pool is None:  # one pool for all epochs: `spawn` takes a second to start
            context = get_context("spawn")
            self.pool = ProcessPoolExecutor(self.workers, context, end_with_parent, (os.getpid(),))
        waiting: deque[Future[Batch]] = deque()
        for step in range(first_step, first_step + steps):
            start = self.first_image + step * self.batch_size
            waiting.append(self.pool.submit(_draw_batch, self.captcha, self.seed, start, self.batch_size))
            if len(waiting) >= self.AHEAD_BATCHES_A_WORKER * self.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def _draw_batch(captcha: CaptchaParams, seed: int, start: int, images: int) -> Batch:
    texts, pixels = zip(*(draw_random(captcha, seed, "train", start + i) for i in range(images)), strict=True)
    return Batch(np.stack(pixels), np.stack([encode(text, captcha.alphabet) for text in texts]))
