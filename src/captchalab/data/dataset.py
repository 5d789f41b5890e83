"""Splits on disk.

    captchalab generate train     400,000 images of 128 x 64 px, grey: 3.3 GB, some 40 s on two cores

A split is a folder: images.npy uint8 (N, H, W, C), labels.npy uint8 (N, L), meta.json with a format
number, everything that shaped the split and a digest over both arrays, samples.png for a first look.
"""

import hashlib
import math
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from captchalab import files
from captchalab.data.counter import Counter
from captchalab.data.rendering import draw_batch, prepare
from captchalab.data.workers import in_order
from captchalab.errors import UserError
from captchalab.params import Split, SplitParams, TrainSplitParams, Weights
from captchalab.reading import formats
from captchalab.reading.alphabet import decode
from captchalab.reading.captcha import CaptchaParams

CHUNK_IMAGES = 500  # what a worker draws at a time
SAMPLES = 24
FORMAT = 1  # of the folder: meta.json and the arrays
_REMEDY = "delete the folder and draw it again with `dvc repro`, or fetch it with `dvc pull`."


class SplitData(NamedTuple):
    """A split read from disk; the images stay there until they are indexed."""

    images: np.ndarray  # uint8 (N, H, W, C)
    labels: np.ndarray  # uint8 (N, L)
    meta: dict[str, Any]

    def texts(self, rows: slice = slice(None)) -> list[str]:
        return [decode(row, self.meta["alphabet"]) for row in self.labels[rows]]


def generate(captcha: CaptchaParams, split: Split, params: SplitParams, seed: int, out: Path, workers: int = 0) -> None:
    """Draw a split to the folder `out`; the same bytes for any number of workers (0: one per core).

    Raises:
        UserError: the disk is too small, or the font lacks a character.
    """
    n = params.images
    weights = params.weights if isinstance(params, TrainSplitParams) else {}
    prepare(captcha)
    with files.atomic_write(out) as folder:
        folder.mkdir(parents=True)
        _require_space(out, folder, n * (math.prod(captcha.image_shape) + captcha.length))
        for name, shape in (("images", (n, *captcha.image_shape)), ("labels", (n, captcha.length))):
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape).flush()
        starts = range(0, n, CHUNK_IMAGES)
        chunks = ((captcha, split, seed, weights, folder, start, min(start + CHUNK_IMAGES, n)) for start in starts)
        with Counter(f"generate {split}", n) as counter:
            for drawn in in_order(_draw_chunk, chunks, workers):
                counter.add(drawn)
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
        meta = {
            "format": FORMAT,
            "split": split,
            "images": n,
            "seed": seed,
            **captcha.model_dump(),
            **({"weights": weights} if weights else {}),  # none: uniform
            "versions": {
                "captcha": version("captcha"),
                "pillow": version("pillow"),
                "python": ".".join(platform.python_version_tuple()[:2]),
            },
            "digest": digest(images, labels),
        }
        files.write_json(folder / "meta.json", meta)
        image_grid(SplitData(images, labels, meta)).save(folder / "samples.png")


def _require_space(out: Path, folder: Path, size: int) -> None:
    """Refuse what the disk cannot hold: writing to a mapped file on a full disk would kill the process."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{out} would take {size / 1e9:,.1f} GB, and its disk has {free / 1e9:,.1f} GB free: make room, or draw "
            "fewer images."
        )


def load(folder: Path, captcha: CaptchaParams, weights: Weights | None = None) -> SplitData:
    """A split from disk, checked against its digest.

    A stage loads each split once, and no stage runs where nothing has changed. So this costs a stage of
    the default sizes some three seconds of reading, which training does anyway.

    Args:
        weights: those of the characters that it has to be drawn with; none: uniform.

    Raises:
        UserError: it is missing, damaged, of a newer format, or was drawn with other captcha parameters or weights.
    """
    meta = files.read_json(folder / "meta.json")
    if refusal := formats.refusal(folder / "meta.json", meta.get("format"), FORMAT):
        raise UserError(refusal)
    drawn = {"weights": {}, **meta}
    for key, value in {**captcha.model_dump(), "weights": weights or {}}.items():
        if drawn.get(key) != value:
            raise UserError(
                f"{folder} was drawn with {key} = {drawn.get(key)!r}, params.yaml says {value!r}: run `dvc repro` to "
                "draw it again."
            )
    images, labels = _array(folder / "images.npy", mmap_mode="r"), _array(folder / "labels.npy")
    if images.shape != (meta.get("images"), *captcha.image_shape) or digest(images, labels) != meta.get("digest"):
        raise UserError(
            f"{folder}/images.npy or labels.npy is not as it was drawn, by the digest in meta.json: {_REMEDY}"
        )
    return SplitData(images, labels, meta)


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 over pixels and labels, the same on every machine that draws the same."""
    sha = hashlib.sha256()
    for start in range(0, len(images), 1_000):
        sha.update(images[start : start + 1_000].tobytes())
    sha.update(labels.tobytes())
    return sha.hexdigest()


def image_grid(data: SplitData, columns: int = 6) -> Image.Image:
    """The first images of a split, each with its text below."""
    n = min(SAMPLES, len(data.images))
    H, W, C = data.images.shape[1:]
    margin, line = 8, 18
    rows = -(-max(n, 1) // columns)
    grid = Image.new("RGB", (columns * (W + margin) + margin, rows * (H + line + margin) + margin), "white")
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(13)
    for i, text in enumerate(data.texts(slice(n))):
        left = margin + i % columns * (W + margin)
        top = margin + i // columns * (H + line + margin)
        pixels = data.images[i]
        grid.paste(Image.fromarray(pixels[..., 0] if C == 1 else pixels), (left, top))
        draw.text((left + W / 2, top + H + 2), text, fill="black", font=font, anchor="ma")
    return grid


def _array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    try:
        return np.load(path, mmap_mode=mmap_mode)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {_REMEDY}") from None
    except (OSError, ValueError, EOFError):  # NumPy's, for a file that is too short or has another header
        raise UserError(f"{path} is truncated or altered: {_REMEDY}") from None


def _draw_chunk(
    captcha: CaptchaParams, split: Split, seed: int, weights: Weights, folder: Path, start: int, stop: int
) -> int:
    """Draw images start..stop - 1 of the folder's arrays, in place; how many."""
    images = np.load(folder / "images.npy", mmap_mode="r+")
    labels = np.load(folder / "labels.npy", mmap_mode="r+")
    labels[start:stop], images[start:stop] = draw_batch(captcha, seed, split, start, stop, weights)
    return stop - start
