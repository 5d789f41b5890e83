"""Images -> texts and confidences, with ONNX Runtime: no Keras, no MLflow.

One contract for both networks: PNG or JPEG bytes in; text, confidence and each character's confidence
out. The registered model carries this package, `reading`, and nothing else of captchalab.
"""

import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from captchalab.reading import confidences, decoding, formats, sealing
from captchalab.reading.captcha import CaptchaParams, Kind
from captchalab.reading.decoding import Prediction
from captchalab.reading.errors import UnreadableError

FORMAT = 1  # of the ONNX file: its metadata, inputs and outputs
SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_FORMATS = ("PNG", "JPEG")
BATCH_IMAGES = 32  # more are no faster, and take more memory


class Predictor(NamedTuple):
    """An exported network in ONNX Runtime."""

    session: Any
    kind: Kind
    captcha: CaptchaParams
    network_md5: str  # of the model.keras it was exported from

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 (B, L, K) or (B, T, K+1) of images uint8 (B, H, W, C)."""
        return np.concatenate(list(self._batches(images)))

    def predict(self, images: np.ndarray) -> Iterator[Prediction]:
        """The prediction for each of the images, uint8 (B, H, W, C)."""
        alphabet = self.captcha.alphabet
        for logits in self._batches(images):
            found = decoding.greedy(self.kind, logits, alphabet)
            sure = confidences.of_characters(self.kind, logits, [one.text for one in found], alphabet)
            for prediction, characters in zip(found, sure, strict=True):
                yield prediction.model_copy(update={"characters": characters})

    def _batches(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Logits, batch by batch, of a batch on each core at a time."""
        batches = [images[i : i + BATCH_IMAGES] for i in range(0, len(images), BATCH_IMAGES)]
        if len(batches) == 1:
            yield self._run(batches[0])
        else:
            with ThreadPoolExecutor(os.cpu_count()) as cores:
                yield from cores.map(self._run, batches)

    def _run(self, images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self.session.run(None, {self.session.get_inputs()[0].name: images})[0]
        return logits


def load(path: Path) -> Predictor:
    """A network exported by `captchalab export`.

    Raises:
        UnreadableError: there is no such file, it is another one, damaged, or of a newer format.
    """
    import onnxruntime

    if not path.is_file():
        raise UnreadableError(f"{path} is missing: make it with `dvc repro`, or fetch it with `dvc pull`.")
    content = path.read_bytes()
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one image is too little to share out; of many, each core takes a batch
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        about = session.get_modelmeta().custom_metadata_map
        number = int(about["format"]) if "format" in about else None
        if refusal := formats.refusal(path, number, FORMAT):
            raise UnreadableError(refusal)
        if number is not None and not sealing.is_intact(content, about["digest"]):
            raise UnreadableError(
                f"{path} is not as it was written, by its digest: delete it and make it again with `dvc repro`, "
                "or fetch it with `dvc pull`."
            )
        kind, network_md5 = about["kind"], about["network_md5"]
        numbers = {key: int(about[key]) for key in ("length", "width_px", "height_px", "channels")}
        captcha = CaptchaParams.model_validate({"alphabet": about["alphabet"], **numbers})
    except UnreadableError:
        raise
    except Exception as error:  # onnxruntime's own are not exported
        raise UnreadableError(
            f"{path} is no network exported by captchalab, or is damaged: name a models/<kind>/export/model.onnx, "
            "or make it again with `dvc repro`."
        ) from error
    return Predictor(session, kind, captcha, network_md5)


def predict_bytes(predictor: Predictor, images: Iterable[tuple[str, bytes]]) -> list[Prediction | UnreadableError]:
    """The prediction for each named image file's content, or why it cannot be read."""
    arrays = [_pixels_or_error(name, content, predictor.captcha) for name, content in images]
    good = [array for array in arrays if isinstance(array, np.ndarray)]
    predictions = predictor.predict(np.stack(good)) if good else iter(())
    return [array if isinstance(array, UnreadableError) else next(predictions) for array in arrays]


def predict_files(predictor: Predictor, paths: Iterable[Path]) -> list[tuple[Path, Prediction | UnreadableError]]:
    """The prediction for each image file; a folder stands for its PNG and JPEG files."""
    named = [file for path in paths for file in _image_files(path)]
    found: dict[Path, Prediction | UnreadableError] = {}
    contents = []
    for file in named:
        try:
            contents.append((file, file.read_bytes()))
        except OSError as error:
            found[file] = UnreadableError(
                f"{file} cannot be read ({error.strerror}): name a PNG or JPEG file, or a folder of them."
            )
    predictions = predict_bytes(predictor, [(str(file), content) for file, content in contents])
    found.update(zip([file for file, _ in contents], predictions, strict=True))
    return [(file, found[file]) for file in named]


def pixels(name: str, content: bytes, captcha: CaptchaParams) -> np.ndarray:
    """The pixels of a PNG or JPEG file, uint8 (H, W, C), grey or RGB as the network expects.

    Raises:
        UnreadableError: it is no image, or of another size than the network reads.
    """
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            if image.size != (captcha.width_px, captcha.height_px):
                raise UnreadableError(
                    f"{name} is {image.width} x {image.height} px, the network reads {captcha.width_px} x "
                    f"{captcha.height_px} px: give it images of that size."
                )
            shown: Image.Image = image
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                shown = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if captcha.channels == 1:
                return np.asarray(shown.convert("L"))[..., None]
            return np.asarray(shown.convert("RGB"))
    except UnreadableError:
        raise  # a ValueError, but it says enough
    except UnidentifiedImageError:
        raise UnreadableError(f"{name} cannot be read as an image: give a PNG or JPEG file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, for a broken file
        raise UnreadableError(f"{name} cannot be read as an image ({error}): give a PNG or JPEG file.") from None


def _pixels_or_error(name: str, content: bytes, captcha: CaptchaParams) -> np.ndarray | UnreadableError:
    try:
        return pixels(name, content, captcha)
    except UnreadableError as error:
        return error


def _image_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise UnreadableError(f"{path} holds no PNG or JPEG file: name a folder that does.")
    return found
