"""A fine-tuned network as ONNX: what is registered, served and read with, without Keras.

    captchalab export cnn         models/cnn/export/: model.onnx, parity.json; about 15 s

The file says itself what its outputs mean: kind, alphabet, length and image size are in its metadata.
Both files read the whole test split before the new one is kept: the same texts, logits within 1e-4.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from captchalab import files
from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.networks import backend, models
from captchalab.reading import decoding, predictor

TOLERANCE = 1e-4  # of logits; float32 sums in another order differ by less


def export(model: Path, test: Path, out: Path) -> dict[str, Any]:
    """Write `out`/model.onnx and `out`/parity.json of a model.keras.

    Returns:
        The content of parity.json: n images, the texts that differ (0), the largest difference of a logit.

    Raises:
        UserError: network or test split missing, or the two files do not read the same.
    """
    backend.start()
    network = models.load(model)
    split = dataset.load(test, network.captcha)
    with files.atomic_write(out) as folder:
        folder.mkdir()
        _convert(network, files.md5(model), folder / "model.onnx")
        parity = _compare(network, predictor.load(folder / "model.onnx"), np.asarray(split.images))
        if parity["texts_that_differ"] or parity["largest_logit_difference"] > TOLERANCE:
            raise UserError(
                f"{model} does not read the same as ONNX ({parity['texts_that_differ']} of {parity['n']:,} texts "
                f"differ, logits by up to {parity['largest_logit_difference']:.1e}): report it as a bug."
            )
        files.write_json(folder / "parity.json", parity)
    return parity


def _convert(network: models.Network, network_md5: str, out: Path) -> None:
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        network.logits(np.zeros((1, *network.captcha.image_shape), np.uint8))  # Keras exports what has been called
        network.model.export(raw, format="onnx", verbose=False)
        converted = onnx.load(raw)
    for value in (converted.graph.input[0], converted.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    about = {"kind": network.kind, **network.captcha.model_dump(), "network_md5": network_md5}
    onnx.helper.set_model_props(converted, {key: str(value) for key, value in about.items()})
    onnx.save(converted, out)


def _compare(network: models.Network, exported: predictor.Predictor, images: np.ndarray) -> dict[str, Any]:
    ours, theirs = network.logits(images), exported.logits(images)
    texts = [
        [found.text for found in decoding.greedy(network.kind, logits, network.captcha.alphabet)]
        for logits in (ours, theirs)
    ]
    return {
        "n": len(images),
        "texts_that_differ": sum(a != b for a, b in zip(*texts, strict=True)),
        "largest_logit_difference": float(np.abs(ours - theirs).max()),
    }
