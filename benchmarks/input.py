"""Whether data holds training up: images/s that reach a training step, from each source and from a plain generator.

.venv/bin/python benchmarks/input.py        three minutes; --quick 20 s
"""

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import harness
import numpy as np
from captcha.image import ImageCaptcha

from captchalab import params
from captchalab.data import batches, dataset
from captchalab.project import Project
from captchalab.reading.captcha import CaptchaParams

BATCH = 32
ABOUT = """Images per second in batches of 32 that a training step gets when it takes no time itself. `plain
generator` is the usual recipe, a batch drawn by the package `captcha` whenever the next is asked for. `stream` draws
fresh images in one process per core, `pool` reads a split that was drawn before, from memory-mapped files that the
system has in memory. The time of a stream includes the start of its processes."""


def plain(captcha: CaptchaParams) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of images (B, H, W, C) and labels (B, L), as such networks are usually fed."""
    drawer = ImageCaptcha(captcha.width_px, captcha.height_px)
    mode = "L" if captcha.channels == 1 else "RGB"
    while True:
        images = np.zeros((BATCH, *captcha.image_shape), np.uint8)
        labels = np.zeros((BATCH, captcha.length), np.uint8)
        for i in range(BATCH):
            text = "".join(random.choices(captcha.alphabet, k=captcha.length))
            images[i] = np.asarray(drawer.generate_image(text).convert(mode)).reshape(captcha.image_shape)
            labels[i] = [captcha.alphabet.index(char) for char in text]
        yield images, labels


def measure(quick: bool) -> harness.Table:
    return compare(params.load(Project.find().params), *(((10, 100, 300), 2) if quick else ((40, 1000, 10_000), 5)))


def compare(all_params: params.Params, steps: tuple[int, int, int], rounds: int) -> harness.Table:
    """Of as many steps of the plain generator, the stream and the pool."""
    captcha, seed = all_params.captcha, all_params.seed
    with tempfile.TemporaryDirectory() as temporary:
        split = Path(temporary) / "train"
        harness.progress("draws a split")
        dataset.generate(captcha, "train", params.SplitParams(images=min(steps[2], 100) * BATCH), seed, split)
        pool = batches.Pool(dataset.load(split, captcha), BATCH, seed, "train")

        def generator() -> harness.Figures:
            return _timed(plain(captcha), steps[0])

        def stream() -> harness.Figures:
            with closing(batches.Stream(captcha, BATCH, seed, "train")) as source:
                return _timed(source.batches(0, steps[1]), steps[1])

        def split_on_disk() -> harness.Figures:
            return _timed(pool.batches(0, steps[2]), steps[2])

        contestants = {"plain generator": generator, "stream": stream, "pool": split_on_disk}
        rows = harness.take_turns(contestants, rounds)
    return harness.Table("Input pipeline", ABOUT, rows, dict.fromkeys(("stream", "pool"), "plain generator"))


def _timed(source: Iterator[object], steps: int) -> harness.Figures:
    started = time.perf_counter()
    for _ in range(steps):
        next(source)
    return {"images/s": steps * BATCH / (time.perf_counter() - started)}


if __name__ == "__main__":
    harness.main(measure)
