"""How fast captchas are drawn: ours against the package `captcha`, one core, the same images.

    .venv/bin/python benchmarks/drawing.py

Each drawer takes its turn, five times over; the medians are compared. `tests/data/test_rendering.py`
holds that both draw the same bytes.
"""

import random
import statistics
import time

from captcha.image import ImageCaptcha

from captchalab.data.rendering import SeededCaptcha

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
IMAGES, ROUNDS = 1000, 5


def images_per_s(drawer: ImageCaptcha) -> float:
    random.seed(1)
    started = time.perf_counter()
    for _ in range(IMAGES):
        drawer.generate_image("".join(random.choices(ALPHABET, k=4)))
    return IMAGES / (time.perf_counter() - started)


def main() -> None:
    drawers = {"captcha 0.7.0": ImageCaptcha(128, 64), "captchalab": SeededCaptcha(128, 64)}
    speeds: dict[str, list[float]] = {name: [] for name in drawers}
    for _ in range(ROUNDS):
        for name, drawer in drawers.items():
            speeds[name].append(images_per_s(drawer))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name:<14} {medians[name]:6.0f} images/s  (min {min(values):.0f}, max {max(values):.0f})")
    print(f"ratio of medians: {medians['captchalab'] / medians['captcha 0.7.0']:.2f}")


if __name__ == "__main__":
    main()
