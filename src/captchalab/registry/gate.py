"""Networks at the gate: what they predict on captchas that were drawn for one attempt alone.

    20,000 captchas of 128 x 64 grey: drawn and predicted by both networks in about a minute on two cores

Image i depends on (seed, "gate-ATTEMPT", i) only. Train, valid and test split have other names, so none of their images
can be among them; `seed` is the registry's own, so attempt 3 of another registry has other captchas too.
Whatever n is, a few chunks of images are in memory at a time and nothing is written.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from captchalab.data.counter import Counter
from captchalab.data.rendering import draw_batch, prepare
from captchalab.data.workers import in_order
from captchalab.reading import decoding
from captchalab.reading.alphabet import decode
from captchalab.reading.captcha import CaptchaParams
from captchalab.reading.predictor import Predictor
from captchalab.registry.decision import Result

CHUNK_IMAGES = 250  # drawn by a worker, then predicted
LATENCY_PREDICTIONS, WARM_UP_PREDICTIONS = 50, 10


class Attempt(NamedTuple):
    """One try to become champion; it counts from the moment it has a number, whatever comes of it."""

    number: int  # 1, 2, ... in this registry: names its captchas
    seed: int  # of this registry
    against: int  # 1, 2, ... against the present champion: what it may spend
    images: int

    @property
    def split(self) -> str:
        return f"gate-{self.number}"


class Predicted(NamedTuple):
    """What networks predict on an attempt's captchas."""

    right: list[np.ndarray]  # per network: bool (n,), exact match
    digest: str  # SHA-256 over pixels and text of each captcha


def predict(networks: Sequence[Predictor], attempt: Attempt, workers: int = 0) -> Predicted:
    """Let networks predict an attempt's captchas, all the same ones.

    Args:
        networks: which read the same captchas.
        workers: processes that draw; 0: one per core.
    """
    captcha = networks[0].captcha
    prepare(captcha)
    right: list[list[np.ndarray]] = [[] for _ in networks]
    sha = hashlib.sha256()
    with Counter(attempt.split, attempt.images) as counter:
        for texts, images in _drawn(captcha, attempt, workers):
            for text, pixels in zip(texts, images, strict=True):
                sha.update(pixels.tobytes())
                sha.update(text.encode())
            for network, found in zip(networks, right, strict=True):
                predictions = decoding.greedy(network.kind, network.logits(images), captcha.alphabet)
                found.append(np.array([p.text == text for p, text in zip(predictions, texts, strict=True)]))
            counter.add(len(texts))
    return Predicted([np.concatenate(found) for found in right], sha.hexdigest())


def measure(network: Predictor) -> Result:
    """A network before any captcha is drawn: what it reads, and how fast it is."""
    return Result(
        network.kind, network.captcha, network.network_md5, latency_ms(network), right=np.zeros(0, dtype=bool)
    )


def latency_ms(network: Predictor) -> float:
    """Milliseconds that one image takes, 95th percentile; what it shows makes no difference."""
    image = np.zeros((1, *network.captcha.image_shape), np.uint8)
    seconds = []
    for _ in range(WARM_UP_PREDICTIONS + LATENCY_PREDICTIONS):
        started = time.perf_counter()
        list(network.predict(image))
        seconds.append(time.perf_counter() - started)
    return float(1000 * np.percentile(seconds[WARM_UP_PREDICTIONS:], 95))


def _drawn(captcha: CaptchaParams, attempt: Attempt, workers: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Chunks of texts and uint8 (B, H, W, C) images, the same ones for any number of workers."""
    starts = range(0, attempt.images, CHUNK_IMAGES)
    chunks = (
        (captcha, attempt.seed, attempt.split, start, min(start + CHUNK_IMAGES, attempt.images)) for start in starts
    )
    return in_order(_draw_chunk, chunks, workers)


def _draw_chunk(captcha: CaptchaParams, seed: int, split: str, start: int, stop: int) -> tuple[list[str], np.ndarray]:
    labels, images = draw_batch(captcha, seed, split, start, stop)  # uniform: what is measured on has no weights
    return [decode(row, captcha.alphabet) for row in labels], images
