"""A fine-tuned network as ONNX: what is registered, served and predicted with, without Keras.

    captchalab export cnn         models/cnn/export/: model.onnx, parity.json; about 15 s

The file says itself what its outputs mean: format number, kind, alphabet, length, image size and its own
digest are in its metadata. Both files predict the whole test split before the new one is kept: logits
within 1e-5 of the largest (1e-4 at least), and the same texts, except where two classes tie.

Keras writes ONNX through TensorFlow, whichever engine trained, and on the CPU: a GRU on a GPU becomes a
cuDNN node that ONNX does not have (keras-team/keras#21799), and TF32 is not as exact.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx

os.environ["KERAS_BACKEND"] = "tensorflow"  # before `backend` imports Keras

from captchalab import files
from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.networks import backend, conversion, models
from captchalab.reading import decoding, predictor, sealing
from captchalab.reading.captcha import Kind

# Of logits. Float32 sums in another order differ by less, and by more where logits are larger: those of a network that
# is sure go beyond 40.
TOLERANCE, RELATIVE_TOLERANCE = 1e-4, 1e-5


def export(model: Path, test: Path, out: Path) -> dict[str, Any]:
    """Write `out`/model.onnx and `out`/parity.json of a model.keras.

    Returns:
        The content of parity.json: n images, the texts that differ (0), those that differ by a tie of two
        classes, the largest difference of a logit.

    Raises:
        UserError: network or test split missing or damaged, or the two files do not predict the same.
    """
    assert backend.ENGINE == "tensorflow", "Keras was imported with another engine before this module"
    backend.start(accelerators=False)
    network = models.load(model)
    split = dataset.load(test, network.captcha)
    with files.atomic_write(out) as folder:
        folder.mkdir()
        _convert(network, files.md5(model), folder / "model.onnx")
        images = np.asarray(split.images)
        ours, theirs = network.logits(images), predictor.load(folder / "model.onnx").logits(images)
        parity = compare(network.kind, ours, theirs, network.captcha.alphabet)
        if parity["texts_that_differ"] or parity["largest_logit_difference"] > tolerance(ours):
            raise UserError(
                f"{model} does not predict the same as ONNX ({parity['texts_that_differ']} of {parity['n']:,} texts "
                f"differ, logits by up to {parity['largest_logit_difference']:.1e}): report it as a bug."
            )
        files.write_json(folder / "parity.json", parity)
    return parity


def compare(kind: Kind, ours: np.ndarray, theirs: np.ndarray, alphabet: str) -> dict[str, Any]:
    """How far two engines' logits (B, L, K) or (B, T, K+1) of the same images agree: parity.json."""
    texts = [[found.text for found in decoding.greedy(kind, logits, alphabet)] for logits in (ours, theirs)]
    differ = np.array([a != b for a, b in zip(*texts, strict=True)], dtype=bool)
    tied = ties(ours, theirs)
    return {
        "n": len(ours),
        "texts_that_differ": int((differ & ~tied).sum()),
        "ties": int((differ & tied).sum()),
        "largest_logit_difference": float(np.abs(ours - theirs).max()),
    }


def ties(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Whether the engines choose, wherever they choose differently, between classes within the tolerance; (B,).

    Args:
        ours, theirs: logits (B, L, K) or (B, T, K+1) of the same images. Greedy decoding takes the best
            class at each place or time step, so a text can only differ where these do.
    """
    other = np.take_along_axis(ours, theirs.argmax(-1)[..., None], -1)[..., 0]  # (B, T): what theirs took, in ours
    return (ours.max(-1) - other <= tolerance(ours)).all(-1)


def tolerance(logits: np.ndarray) -> float:
    """By how much another engine's logits may differ from these."""
    return max(TOLERANCE, RELATIVE_TOLERANCE * float(np.abs(logits).max()))


def _convert(network: models.Network, network_md5: str, out: Path) -> None:
    about = {"kind": network.kind, **network.captcha.model_dump(), "network_md5": network_md5}
    write(conversion.convert(network.model), about, out)


def write(model: onnx.ModelProto, about: dict[str, Any], out: Path) -> None:
    """Write an ONNX file that says what it reads, in which format, and what its own digest is."""
    described = {**about, "format": predictor.FORMAT, "digest": sealing.PLACEHOLDER}
    onnx.helper.set_model_props(model, {key: str(value) for key, value in described.items()})
    out.write_bytes(sealing.seal(model.SerializeToString(deterministic=True)))
