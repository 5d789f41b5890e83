"""How fast captchas are drawn: ours against the package `captcha`, the same images.

    .venv/bin/python benchmarks/drawing.py                  speed, on one core and on all
    .venv/bin/python benchmarks/drawing.py --check 1000     no speed: 1,000 images of each kind, byte for byte

Both take their turns, five times over; medians are compared. One core: in this process. All cores: worker processes, as
`captchalab generate` has them, started and warm. At the end, where the time of ours goes. The check is
`tests/data/test_rendering.py`'s, of more images.
"""

import argparse
import os
import platform
import random
import statistics
import string
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import matplotlib
import numpy as np
from captcha.image import ImageCaptcha

from captchalab.data import rendering
from captchalab.data.drawing import chance, noise, painting
from captchalab.data.workers import in_order
from captchalab.reading.captcha import CaptchaParams

PARTS = {
    "random numbers": (chance, "choose"),
    "glyphs": (painting, "paint"),
    "dots, curve, smoothing": (noise, "finish"),
}
UPPER, LOWER = string.digits + string.ascii_uppercase, string.ascii_lowercase
CAPTCHA = CaptchaParams(alphabet=UPPER, length=4, width_px=128, height_px=64, channels=1)
ROUNDS, CHUNK = 5, 100
IMAGES = {"captcha": 1000, "captchalab": 10000}  # per core: a good second each
FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
KINDS: tuple[
    tuple[str, int, int, int, int, tuple[str, ...]], ...
] = (  # alphabet, length, width, height, channels, fonts
    (UPPER, 4, 128, 64, 1, ()),
    (UPPER, 4, 128, 64, 3, ()),
    (UPPER, 6, 192, 64, 3, ()),
    (LOWER, 5, 170, 80, 3, ()),
    (UPPER + LOWER, 4, 160, 60, 1, ()),
    (string.digits, 2, 64, 32, 3, ()),
    (UPPER, 3, 60, 150, 3, ()),
    (UPPER, 20, 100, 40, 1, ()),
    (string.punctuation, 4, 128, 64, 3, ()),
    (UPPER + LOWER, 4, 128, 64, 3, ("DejaVuSerif-Italic.ttf", "cmr10.ttf")),
    (UPPER + LOWER, 4, 128, 64, 1, ("DejaVuSansMono-Bold.ttf", "STIXGeneralItalic.ttf", "cmmi10.ttf")),
)


def theirs(package: ImageCaptcha, key: int, alphabet: str, length: int, channels: int) -> tuple[str, np.ndarray]:
    """Text and pixels, drawn by the package."""
    random.seed(key)
    text = "".join(random.choices(alphabet, k=length))
    image = package.generate_image(text)
    return text, np.asarray(image.convert("L"))[..., None] if channels == 1 else np.asarray(image)


def draw_theirs(start: int) -> None:
    package = ImageCaptcha(CAPTCHA.width_px, CAPTCHA.height_px)
    for i in range(start, start + CHUNK):
        theirs(package, i, UPPER, CAPTCHA.length, CAPTCHA.channels)


def draw_ours(start: int) -> None:
    rendering.draw_batch(CAPTCHA, 1, "train", start, start + CHUNK)


def images_per_s(draw: Callable[[int], None], images: int, workers: int) -> float:
    calls = ((start,) for start in range(0, images, CHUNK))
    started = time.perf_counter()
    for _ in in_order(draw, calls, workers):
        pass
    return images / (time.perf_counter() - started)


def shares(images: int) -> dict[str, float]:
    """Of the time of drawing on one core, by part."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, call: Callable[..., None]) -> Callable[..., None]:
        def work(*given: object) -> None:
            started = time.perf_counter()
            call(*given)
            seconds[part] += time.perf_counter() - started

        return work

    with ExitStack() as patches:
        for part, (module, name) in PARTS.items():
            patches.enter_context(mock.patch.object(module, name, timed(part, getattr(module, name))))
        started = time.perf_counter()
        for start in range(0, images, CHUNK):
            draw_ours(start)
        whole = time.perf_counter() - started
    return {part: spent / whole for part, spent in (seconds | {"the rest": whole - sum(seconds.values())}).items()}


def check(images: int) -> int:
    """Images that differ, over all kinds."""
    bad = 0
    for alphabet, length, width, height, channels, fonts in KINDS:
        package = ImageCaptcha(width, height, [str(FONTS / font) for font in fonts] or None)
        keys = [rendering._key("check", width, i) for i in range(images)]
        labels, drawn = rendering.Renderer(package, alphabet, channels).random(keys, length, [1.0] * len(alphabet))
        differ = 0
        for key, label, pixels in zip(keys, labels, drawn, strict=True):
            text, expected = theirs(package, key, alphabet, length, channels)
            differ += text != "".join(alphabet[k] for k in label) or not np.array_equal(pixels, expected)
        bad += differ
        kind = f"{length} of {len(alphabet)} characters, {width} x {height}, {'grey' if channels == 1 else 'RGB'}"
        print(f"{kind:<46} {', '.join(fonts) or 'own font':<66} {differ} of {images:,} differ", flush=True)
    return bad


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", type=int, metavar="N", help="compare N images of each kind")
    parser.add_argument("--quick", action="store_true", help="one round, a tenth of the images")
    options = parser.parse_args()
    if options.check:
        sys.exit(1 if check(options.check) else 0)
    rounds, fewer = (1, 10) if options.quick else (ROUNDS, 1)
    images = {name: number // fewer for name, number in IMAGES.items()}
    cores = os.cpu_count() or 1
    rendering.prepare(CAPTCHA)
    print(
        f"captcha {version('captcha')}, pillow {version('pillow')}, numba {version('numba')}, Python "
        f"{platform.python_version()}; {processor()}, {cores} cores, load {os.getloadavg()[0]:.1f}\n"
        f"{CAPTCHA.width_px} x {CAPTCHA.height_px} px, grey, {CAPTCHA.length} of {len(UPPER)} characters; images/s, "
        f"median of {rounds} rounds of {images['captcha']:,} and {images['captchalab']:,} per core (least, most)"
    )
    for workers in sorted({1, cores}):
        cores_used = f"{workers} core{'s' * (workers > 1)}"
        speeds: dict[str, list[float]] = {"captcha": [], "captchalab": []}
        for turn in range(-1, rounds):  # the first one warms up
            for name, draw in (("captcha", draw_theirs), ("captchalab", draw_ours)):
                speed = images_per_s(draw, images[name] * workers, workers)
                speeds[name] += [speed] if turn >= 0 else []
        for name, values in speeds.items():
            median = statistics.median(values)
            print(f"{cores_used:<8} {name:<11} {median:7,.0f} ({min(values):,.0f}, {max(values):,.0f})")
        ratio = statistics.median(speeds["captchalab"]) / statistics.median(speeds["captcha"])
        print(f"{cores_used:<8} {'ratio':<11} {ratio:7.1f}", flush=True)
    parts = shares(images["captchalab"])
    print("of ours: " + ", ".join(f"{part} {share:.0%}" for part, share in parts.items()), flush=True)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
