"""Seeded captcha images. With `drawing` the only module that knows the package `captcha`.

Image i of split s depends on (seed, s, i) and the characters' weights only, so any worker may draw any image.

Both ways give the bytes of `captcha.image.ImageCaptcha` 0.7.0. A single captcha of a given text is drawn by the package
itself: it waits for no compiler. Splits and batches are drawn by `drawing`, many times as fast (benchmarks/drawing.py).
"""

import hashlib
import random
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from captcha.image import ImageCaptcha
from PIL import Image, ImageDraw

from captchalab.errors import UserError
from captchalab.reading.captcha import CaptchaParams

COMPILING_AFTER_S = 3.0  # what has been compiled before is there in a tenth of that
NO_CHARACTER = "\U0010ffff"  # by the Unicode standard
BATCH_IMAGES = 32  # drawn at a time: their pixels stay in the processor's caches


def draw_text(params: CaptchaParams, text: str, seed: int, index: int = 0) -> np.ndarray:
    """A captcha of a given text, uint8 (H, W, C); image `index` of `seed`."""
    with _random_seeded(_key(seed, "text", text, index)):
        image = ImageCaptcha(params.width_px, params.height_px).generate_image(text)
    return np.asarray(image.convert("L"))[..., None] if params.channels == 1 else np.asarray(image)


def draw_random(params: CaptchaParams, seed: int, split: str, index: int) -> tuple[str, np.ndarray]:
    """Text and uint8 (H, W, C) pixels of image `index` of a split; texts are drawn uniformly."""
    labels, images = draw_batch(params, seed, split, index, index + 1)
    return "".join(params.alphabet[k] for k in labels[0]), images[0]


def draw_batch(
    params: CaptchaParams, seed: int, split: str, start: int, stop: int, weights: Mapping[str, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels uint8 (B, L) and pixels uint8 (B, H, W, C) of images start..stop - 1 of a split.

    Args:
        weights: how often a character is drawn; 1 where none is named.
    """
    renderer = _renderer(params.alphabet, params.width_px, params.height_px, params.channels)
    keys = [_key(seed, split, i) for i in range(start, stop)]
    return renderer.random(keys, params.length, [(weights or {}).get(char, 1.0) for char in params.alphabet])


def require_glyphs(params: CaptchaParams) -> None:
    """Refuse an alphabet with characters that would all look alike, because the font has none of them.

    Raises:
        UserError: names them.
    """
    font = ImageCaptcha(params.width_px, params.height_px).truefonts[0]
    box = font.getmask(NO_CHARACTER)  # what a font shows for a character that it lacks
    lacking = [char for char in params.alphabet if bytes(font.getmask(char)) == bytes(box)]
    if lacking:
        raise UserError(
            f"captcha.alphabet has {' '.join(lacking)}, which the font of the package captcha lacks and would draw as "
            "empty boxes: take characters that it has."
        )


def prepare(params: CaptchaParams) -> None:
    """Have everything compiled, once for all workers that are started after it; the first time it takes its while.

    Raises:
        UserError: the font lacks a character of the alphabet.
    """
    require_glyphs(params)
    import numba  # noqa: F401 - its import is no part of what is timed

    text = "drawing: compiling for this machine, half a minute the first time"
    with _said_after(COMPILING_AFTER_S, text):
        draw_batch(params, 0, "prepare", 0, 1)


class Renderer:
    """Draws captchas of an alphabet as a drawer of the package does, byte for byte."""

    def __init__(self, package: ImageCaptcha, alphabet: str, channels: int) -> None:
        from captchalab.data.drawing import glyphs

        self.size, self.channels = (package._width, package._height), channels
        self.style, self.glyphs = glyphs.style(package), glyphs.measure(package, alphabet)
        self.opacity = np.array(package.lookup_table).clip(max=255).astype(np.uint8)
        dot = Image.new("L", (9, 9))
        ImageDraw.Draw(dot).line(((4, 4), (3, 3)), fill=255, width=3)  # as ImageCaptcha.create_noise_dots
        self.dot = np.ascontiguousarray(np.argwhere(np.asarray(dot).T) - 4)  # x, y

    def random(self, keys: list[int], length: int, weights: list[float]) -> tuple[np.ndarray, np.ndarray]:
        """Labels uint8 (B, L) and pixels uint8 (B, H, W, C), one for each key that seeds Python's `random`."""
        W, H = self.size
        labels = np.empty((len(keys), length), np.uint8)
        images = np.empty((len(keys), H, W, self.channels), np.uint8)
        for part in _parts(len(keys)):
            self._draw(keys[part], np.cumsum(weights, dtype=float), labels[part], images[part])
        return labels, images

    def _draw(self, keys: list[int], chances: np.ndarray, labels: np.ndarray, images: np.ndarray) -> None:
        from captchalab.data.drawing import chance, noise, painting

        number, length = labels.shape
        captchas, glyphs = np.zeros(number, chance.CAPTCHA), np.zeros((number, length), chance.GLYPH)
        words = np.frombuffer(b"".join(key.to_bytes(16, "little") for key in keys), "<u4").reshape(number, 4)
        boxes, masks, corners, sizes = self.glyphs
        chance.choose(words, chances, boxes, masks, self.style, self.size, length, labels, captchas, glyphs)
        canvases = np.empty((number, *self.size), np.uint32)
        painting.paint(captchas, glyphs, boxes, corners, sizes, self.opacity, canvases)
        noise.finish(captchas, self.dot, canvases, images)


@lru_cache(maxsize=8)
def _renderer(alphabet: str, width_px: int, height_px: int, channels: int) -> Renderer:
    return Renderer(ImageCaptcha(width_px, height_px), alphabet, channels)


def _parts(number: int) -> Iterator[slice]:
    for start in range(0, number, BATCH_IMAGES):
        yield slice(start, min(start + BATCH_IMAGES, number))


def _key(*parts: object) -> int:
    """What seeds Python's `random`: 128 bits."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16], "big")


@contextmanager
def _random_seeded(key: int) -> Iterator[None]:
    """Python's `random` seeded with a key; the caller's state is restored at the end."""
    state = random.getstate()
    random.seed(key)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _said_after(seconds: float, text: str) -> Iterator[None]:
    """A line on stderr, if what is done takes longer than that."""
    timer = threading.Timer(seconds, print, (text,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
