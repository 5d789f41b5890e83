"""How the steps of an epoch are run: one per call on a CPU, many per call on an accelerator."""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from captchalab.data import batches
from captchalab.networks import backend, models
from captchalab.training import device_loop

CALL_STEPS = 100  # at most; an accelerator then waits for Python a hundredth as often
RESIDENT_SHARE = 0.5  # of the accelerator's memory; the rest is for the training itself


class Trainer(Protocol):
    """Trains the steps of a source in their order, and gives the loss of each."""

    def losses(self, first_step: int, steps: int) -> Iterator[float]: ...


def build(network: models.Network, optimizer: Any, source: batches.Source, device: backend.Device) -> Trainer:
    """The trainer for a compiled network, by what it runs on."""
    if not device.accelerator:
        return OneByOne(network, source)
    resident = isinstance(source, batches.Pool) and fits(source, device)
    return Looped(network, optimizer, source, resident)


def fits(pool: batches.Pool, device: backend.Device) -> bool:
    """Whether all images of a pool may stay on the accelerator."""
    return bool(pool.data.images.nbytes <= RESIDENT_SHARE * device.memory_bytes)


class OneByOne:
    """A call of Keras per step."""

    def __init__(self, network: models.Network, source: batches.Source) -> None:
        self.model, self.source = network.model, source

    def losses(self, first_step: int, steps: int) -> Iterator[float]:
        for batch in self.source.batches(first_step, steps):
            yield float(self.model.train_on_batch(batch.images, batch.labels))


class Looped:
    """A call per hundred steps, or per as many as divide an epoch.

    Args:
        resident: the pool stays on the device; otherwise each call brings its images.
    """

    def __init__(self, network: models.Network, optimizer: Any, source: batches.Source, resident: bool) -> None:
        self.source, self.resident = source, resident
        kept = None
        if resident:
            assert isinstance(source, batches.Pool)
            kept = source.data
        self.run = device_loop.build(network.model, optimizer, models.LOSSES[network.kind], kept)

    def losses(self, first_step: int, steps: int) -> Iterator[float]:
        per_call = math.gcd(steps, CALL_STEPS)
        read = self._rows if self.resident else self._batches
        for first in range(first_step, first_step + steps, per_call):
            yield from map(float, self.run(*read(first, per_call)))

    def _rows(self, first_step: int, steps: int) -> list[np.ndarray]:
        assert isinstance(self.source, batches.Pool)
        return [np.stack(list(self.source.rows(first_step, steps))).astype(np.int32)]

    def _batches(self, first_step: int, steps: int) -> list[np.ndarray]:
        read = list(self.source.batches(first_step, steps))
        return [np.stack([batch.images for batch in read]), np.stack([batch.labels for batch in read])]
