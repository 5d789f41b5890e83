"""Sizes and masks of a font's characters, measured and rasterised once by the package's own calls of Pillow."""

from typing import NamedTuple

import numpy as np
from captcha.image import ImageCaptcha
from PIL import Image, ImageDraw, ImageFont

ANCHOR = (1, 1)  # where the package measures a glyph; it counts into width and height
BLANK = " "


class Style(NamedTuple):
    """The package's constants that `chance.choose` takes its random numbers with."""

    blank_above: float
    overlap: float
    dx: tuple[int, int]
    dy: tuple[int, int]
    rotation: tuple[float, float]  # degrees
    warp_x: tuple[float, float]  # of a glyph's width
    warp_y: tuple[float, float]


class Glyphs(NamedTuple):
    """Characters of an alphabet in each of F fonts."""

    boxes: np.ndarray  # int64 (F, K + 1, 2): width and height, px; the last one is a blank's
    masks: np.ndarray  # int64 (F, K, dx, dy): which of M it is
    corners: np.ndarray  # uint32 (M, height + 2, width + 2): the four pixels around each corner of a mask's pixels
    sizes: np.ndarray  # int64 (M, 2): the masks' heights and widths


def style(package: ImageCaptcha) -> Style:
    """The constants of a package's drawer."""
    return Style(
        float(package.word_space_probability),
        float(package.word_offset_dx),
        package.character_offset_dx,
        package.character_offset_dy,
        _floats(package.character_rotate),
        _floats(package.character_warp_dx),
        _floats(package.character_warp_dy),
    )


def measure(package: ImageCaptcha, alphabet: str) -> Glyphs:
    """Everything that painting needs to know of the glyphs.

    The package draws a character dx, dy px from the corner of an image of its width + dx and height + dy, and crops
    that to the ink. Where the ink begins left of the character's origin (a lower-case w) or above it, dx and dy decide
    how much of it is cut off: so there is a mask for each of them.
    """
    fonts, (dx, dy) = package.truefonts, (package.character_offset_dx, package.character_offset_dy)
    boxes = np.array([[_box(font, char) for char in alphabet + BLANK] for font in fonts], np.int64)
    masks = np.empty((len(fonts), len(alphabet), dx[1] - dx[0] + 1, dy[1] - dy[0] + 1), np.int64)
    found: dict[tuple[tuple[int, ...], bytes], int] = {}
    arrays: list[np.ndarray] = []
    for f, k in np.ndindex(masks.shape[:2]):
        box = boxes[f, k]
        whole = Image.new("L", (dx[1] + int(box[0]), dy[1] + int(box[1])))
        ImageDraw.Draw(whole).text((dx[1], dy[1]), alphabet[k], font=fonts[f], fill=255)
        for x, y in np.ndindex(masks.shape[2:]):
            mask = _cropped(np.asarray(whole)[dy[1] - dy[0] - y :, dx[1] - dx[0] - x :])
            masks[f, k, x, y] = number = found.setdefault((mask.shape, mask.tobytes()), len(arrays))
            if number == len(arrays):
                arrays.append(mask)
    sizes = np.array([mask.shape for mask in arrays], np.int64)
    corners = np.zeros((len(arrays), *sizes.max(axis=0) + 2), np.uint32)
    for i, (mask, (height, width)) in enumerate(zip(arrays, sizes, strict=True)):
        corners[i, : height + 1, : width + 1] = _corners(mask)
    return Glyphs(boxes, masks, corners, sizes)


def _corners(mask: np.ndarray) -> np.ndarray:
    """Around each corner the four pixels, the upper left one in the lowest byte; beyond its border a mask goes on."""
    wide = np.pad(mask, 1, "edge").astype(np.uint32)
    return wide[:-1, :-1] | wide[:-1, 1:] << 8 | wide[1:, :-1] << 16 | wide[1:, 1:] << 24


def _floats(pair: tuple[float, float]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def _box(font: ImageFont.FreeTypeFont, char: str) -> tuple[int, int]:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    _, _, right, bottom = draw.multiline_textbbox(ANCHOR, char, font=font)
    return int(right), int(bottom)


def _cropped(mask: np.ndarray) -> np.ndarray:
    """A mask without its empty borders; where there is no ink at all, the whole of it."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] if len(ys) else mask
