"""Seeded captcha images. The only module that knows the package `captcha`.

Image i of split s depends on (seed, s, i) only, so any worker may draw any image. The package draws
from Python's global `random`; each image seeds it and restores the caller's state.

`SeededCaptcha` gives the same bytes as `captcha.image.ImageCaptcha` (a test holds it to that), 1.7
times as fast (benchmarks/drawing.py): it measures and rasterises each glyph once, and spends
nothing on blanks, which are a third of all glyphs and change no pixel.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache

import numpy as np
from captcha.image import ImageCaptcha
from PIL import Image, ImageDraw, ImageFont

from captchalab.reading.captcha import CaptchaParams

OPACITY = np.array(ImageCaptcha.lookup_table).clip(max=255).astype(np.uint8)  # brightness -> opacity
SIZE_OF_TEXT_ANCHOR = (1, 1)  # where the package measures a glyph; it counts into width and height

Colour = tuple[int, ...]  # RGB or RGBA, 0..255


@cache
def _glyph_box(font: ImageFont.FreeTypeFont, char: str) -> tuple[int, int]:
    """Width and height the package takes for a glyph, px."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    _, _, right, bottom = draw.multiline_textbbox(SIZE_OF_TEXT_ANCHOR, char, font=font)
    return int(right), int(bottom)


@cache
def _glyph_mask(font: ImageFont.FreeTypeFont, char: str) -> Image.Image:
    """Coverage of one glyph, cropped to its ink, mode L."""
    width, height = _glyph_box(font, char)
    mask = Image.new("L", (width + 16, height + 16))
    ImageDraw.Draw(mask).text((8, 8), char, font=font, fill=255)
    return mask.crop(mask.getbbox())


class SeededCaptcha(ImageCaptcha):
    """`ImageCaptcha` of `captcha` 0.7.0, faster; takes the same random numbers in the same order."""

    def _draw_character(self, c: str, draw: ImageDraw.ImageDraw, color: Colour) -> Image.Image:
        font = random.choice(self.truefonts)
        w, h = _glyph_box(font, c)
        random.randint(*self.character_offset_dx)  # the package moves the glyph, then crops it:
        random.randint(*self.character_offset_dy)  # only the random numbers matter
        angle = random.uniform(*self.character_rotate)
        dx = w * random.uniform(*self.character_warp_dx)
        dy = h * random.uniform(*self.character_warp_dy)
        x1 = int(random.uniform(-dx, dx))
        y1 = int(random.uniform(-dy, dy))
        x2 = int(random.uniform(-dx, dx))
        y2 = int(random.uniform(-dy, dy))
        if c == " ":
            return Image.new("RGBA", (w, h))
        mask = _glyph_mask(font, c)
        glyph = Image.new("RGBA", mask.size)
        glyph.paste(color, (0, 0), mask)
        glyph = glyph.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        w2, h2 = w + abs(x1) + abs(x2), h + abs(y1) + abs(y2)
        corners = (x1, y1, -x1, h2 - y2, w2 + x2, h2 + y2, w2 - x2, -y1)
        return glyph.resize((w2, h2)).transform((w, h), Image.Transform.QUAD, corners)

    def create_captcha_image(self, chars: str, color: Colour, background: Colour) -> Image.Image:
        canvas = Image.new("RGB", (self._width, self._height), background)
        draw = ImageDraw.Draw(canvas)
        glyphs = []
        for c in chars:
            if random.random() > self.word_space_probability:
                glyphs.append((" ", self._draw_character(" ", draw, color)))
            glyphs.append((c, self._draw_character(c, draw, color)))
        text_width = sum(glyph.size[0] for _, glyph in glyphs)
        width = max(text_width, self._width)
        if width > self._width:  # one colour: a new canvas is the stretched one
            canvas = Image.new("RGB", (width, self._height), background)
        average = int(text_width / len(chars))
        overlap = int(self.word_offset_dx * average)
        left = int(average * 0.1)
        for c, glyph in glyphs:
            w, h = glyph.size
            if c != " ":
                opacity = Image.fromarray(OPACITY[np.asarray(glyph.convert("L"))])
                canvas.paste(glyph, (left, int((self._height - h) / 2)), opacity)
            left += w + random.randint(-overlap, 0)
        if width > self._width:
            canvas = canvas.resize((self._width, self._height))
        return canvas


@contextmanager
def _random_seeded(*key: object) -> Iterator[None]:
    """Python's `random` seeded from a key; the caller's state is restored at the end."""
    state = random.getstate()
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    random.seed(int.from_bytes(digest[:16], "big"))
    try:
        yield
    finally:
        random.setstate(state)


@lru_cache(maxsize=8)
def _renderer(width_px: int, height_px: int) -> SeededCaptcha:
    return SeededCaptcha(width_px, height_px)


def _pixels(params: CaptchaParams, text: str) -> np.ndarray:
    image = _renderer(params.width_px, params.height_px).generate_image(text)
    if params.channels == 1:
        return np.asarray(image.convert("L"))[..., None]  # (H, W, 1)
    return np.asarray(image)  # (H, W, 3)


def draw_text(params: CaptchaParams, text: str, seed: int, index: int = 0) -> np.ndarray:
    """A captcha of a given text, uint8 (H, W, C); image `index` of `seed`."""
    with _random_seeded(seed, "text", text, index):
        return _pixels(params, text)


def draw_random(params: CaptchaParams, seed: int, split: str, index: int) -> tuple[str, np.ndarray]:
    """Text and uint8 (H, W, C) pixels of image `index` of a split; texts are drawn uniformly."""
    with _random_seeded(seed, split, index):
        text = "".join(random.choices(params.alphabet, k=params.length))
        return text, _pixels(params, text)
