"""Picture files -> texts and confidences, with a saved network."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from captchalab.decoding import Read
from captchalab.errors import UserError
from captchalab.params import CaptchaParams

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_files(model: Path, paths: Iterable[Path]) -> list[tuple[Path, Read]]:
    """What a network reads in each picture; a folder stands for its PNG and JPEG files.

    Raises:
        UserError: a file is missing, no picture, or of another size than the network reads.
    """
    from captchalab import backend

    backend.start()
    from captchalab import decoding, models

    _, captcha = models.describe(model)
    pictures = [file for path in paths for file in _pictures(path)]
    images = np.stack([pixels(file, captcha) for file in pictures])
    reader = models.load(model)
    reads = decoding.read(reader.kind, reader.logits(images), captcha.alphabet)
    return list(zip(pictures, reads, strict=True))


def pixels(file: Path, captcha: CaptchaParams) -> np.ndarray:
    """A picture file as uint8 (H, W, C), grey or RGB as the network wants it."""
    try:
        with Image.open(file) as picture:
            if picture.size != (captcha.width_px, captcha.height_px):
                raise UserError(
                    f"{file} is {picture.width} x {picture.height} px, the network reads {captcha.width_px} x "
                    f"{captcha.height_px} px: give it pictures of that size."
                )
            if captcha.channels == 1:
                return np.asarray(picture.convert("L"))[..., None]
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing: name a PNG or JPEG file, or a folder of them.") from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{file} is no picture that can be read ({error}): give a PNG or JPEG file.") from None


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{path} holds no PNG or JPEG file: name a folder that does.")
    return found
