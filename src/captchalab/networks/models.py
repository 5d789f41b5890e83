"""The two networks, from one trunk: images uint8 (B, H, W, C) in, float32 logits out.

CNN: (B, L, K), a softmax per character. CTC: (B, T, K+1), a softmax per time step, the last class blank.
Pure Keras 3. With the reference's sizes (profiles/reference.yaml) they have the reference's parameter
counts: 2,653,360 and 3,157,317.

A saved model is a Keras file with one more entry, captchalab.json: format number, kind, alphabet, length
and image size, so that the file alone says what its outputs mean. The same weights give the same bytes.
The zip format's CRC-32 of each entry tells a truncated or altered file.
"""

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from captchalab import files
from captchalab.errors import UserError
from captchalab.networks.backend import keras
from captchalab.params import CtcNetworkParams, NetworkParams, Precision
from captchalab.reading import formats
from captchalab.reading.alphabet import blank
from captchalab.reading.captcha import CaptchaParams, Kind

layers, ops = keras.layers, keras.ops

ENTRY = "captchalab.json"
FORMAT = 1  # of the file: its entries and their meaning
ZIP_BEGINS = b"PK\x03\x04"
TRUNK = ("scale", "stem_", "block")  # its layers' names begin with one of these
SAVED_AT = (1980, 1, 1, 0, 0, 0)  # the zip format's first date: the file says nothing about when


class Network(NamedTuple):
    """A Keras network and what it reads."""

    model: keras.Model
    kind: Kind
    captcha: CaptchaParams

    def logits(self, images: Any, batch_size: int = 250) -> Any:
        """Float32 (B, L, K) or (B, T, K+1) of images uint8 (B, H, W, C)."""
        return self.model.predict(images, batch_size=batch_size, verbose=0)


def build(kind: Kind, captcha: CaptchaParams, params: NetworkParams) -> Network:
    if kind == "ctc":
        assert isinstance(params, CtcNetworkParams)
        return Network(build_ctc(captcha, params), kind, captcha)
    return Network(build_cnn(captcha, params), kind, captcha)


def build_cnn(captcha: CaptchaParams, params: NetworkParams) -> keras.Model:
    L, K = captcha.length, len(captcha.alphabet)
    images = keras.Input(captcha.image_shape, dtype="uint8", name="images")  # (B, H, W, C)
    x = _trunk(images, params)  # (B, H', W', F)
    x = layers.Flatten(name="flatten")(x)  # (B, H'*W'*F)
    if params.dropout:
        x = layers.Dropout(params.dropout, name="dropout")(x)
    x = layers.Dense(L * K, dtype="float32", name="characters")(x)  # (B, L*K)
    logits = layers.Reshape((L, K), dtype="float32", name="logits")(x)  # (B, L, K)
    return keras.Model(images, logits, name="cnn")


def build_ctc(captcha: CaptchaParams, params: CtcNetworkParams) -> keras.Model:
    images = keras.Input(captcha.image_shape, dtype="uint8", name="images")  # (B, H, W, C)
    x = _trunk(images, params)  # (B, H', T, F)
    _, height, steps, features = x.shape
    x = layers.Permute((2, 1, 3), name="width_to_time")(x)  # (B, T, H', F)
    x = layers.Reshape((steps, height * features), name="columns")(x)  # (B, T, H'*F)
    for i in range(params.rnn_layers):
        gru = layers.GRU(params.rnn_size, return_sequences=True, name="gru")  # a name, or Keras counts them
        x = layers.Bidirectional(gru, name=f"gru{i + 1}")(x)  # (B, T, 2*rnn_size)
    if params.dropout:
        x = layers.Dropout(params.dropout, name="dropout")(x)
    logits = layers.Dense(blank(captcha.alphabet) + 1, dtype="float32", name="logits")(x)  # (B, T, K+1)
    return keras.Model(images, logits, name="ctc")


def with_precision(network: Network, precision: Precision) -> Network:
    """The network with a trunk that computes in another precision; weights stay float32, and what follows it too."""
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"

    def cloned(layer: Any) -> Any:
        in_trunk = layer.name.startswith(TRUNK)
        return type(layer).from_config({**layer.get_config(), **({"dtype": policy} if in_trunk else {})})

    if all(layer.dtype_policy.name == policy for layer in network.model.layers if layer.name.startswith(TRUNK)):
        return network
    bare = keras.Model(network.model.inputs, network.model.outputs, name=network.kind)  # without optimizer and loss
    model = keras.models.clone_model(bare, clone_function=cloned)
    model.set_weights(network.model.get_weights())
    return network._replace(model=model)


def cnn_loss(labels: Any, logits: Any) -> Any:
    """Cross-entropy summed over the characters, (B,), of labels (B, L) and logits (B, L, K)."""
    return ops.sum(ops.sparse_categorical_crossentropy(ops.cast(labels, "int32"), logits, from_logits=True), -1)


def ctc_loss(labels: Any, logits: Any) -> Any:
    """-log P(text), (B,), of labels (B, L) and logits (B, T, K+1); all texts and images of one length."""
    B, L = ops.shape(labels)
    _, T, classes = logits.shape
    lengths = ops.full((B,), L, dtype="int32")
    steps = ops.full((B,), T, dtype="int32")
    return ops.ctc_loss(ops.cast(labels, "int32"), logits, lengths, steps, mask_index=classes - 1)


LOSSES = {"cnn": cnn_loss, "ctc": ctc_loss}


def save(network: Network, path: Path) -> None:
    """Write a .keras file; the same weights give the same bytes, whenever they are saved."""
    described = {"format": FORMAT, "kind": network.kind, **network.captcha.model_dump()}
    with files.atomic_write(path) as partial:
        saved = partial.with_name(f"{partial.name}.keras")
        try:
            # without what it was compiled with: optimizer state is the checkpoint's
            keras.Model(network.model.inputs, network.model.outputs, name=network.kind).save(saved)
            with zipfile.ZipFile(saved) as source, zipfile.ZipFile(partial, "w") as target:
                for name in sorted(source.namelist()):
                    target.writestr(zipfile.ZipInfo(name, SAVED_AT), _timeless(name, source.read(name)))
                target.writestr(zipfile.ZipInfo(ENTRY, SAVED_AT), json.dumps(described, ensure_ascii=False))
        finally:
            saved.unlink(missing_ok=True)


def describe(path: Path) -> tuple[Kind, CaptchaParams]:
    """What a saved model reads, without loading it; the file is checked against the checksums in it.

    Raises:
        UserError: there is no such file, it was not saved by captchalab, is damaged, or of a newer format.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != ZIP_BEGINS:
                raise KeyError(ENTRY)
        with zipfile.ZipFile(path) as saved:
            described = json.loads(saved.read(ENTRY))
            if saved.testzip():  # reads all of it, CRC-32 by CRC-32
                raise zipfile.BadZipFile
    except FileNotFoundError:
        raise UserError(f"{path} is missing: train it with `dvc repro`, or fetch it with `dvc pull`.") from None
    except KeyError:
        raise UserError(f"{path} is no model saved by captchalab: name a models/<kind>/<stage>/model.keras.") from None
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError):
        raise UserError(
            f"{path} is truncated or altered: delete it and train it again with `dvc repro`, or fetch it with "
            "`dvc pull`."
        ) from None
    if refusal := formats.refusal(path, described.pop("format", None), FORMAT):
        raise UserError(refusal)
    kind = described.pop("kind")
    return kind, CaptchaParams.model_validate(described)


def load(path: Path) -> Network:
    """A saved network, ready to read.

    Raises:
        UserError: see `describe`.
    """
    kind, captcha = describe(path)
    return Network(keras.saving.load_model(path, compile=False), kind, captcha)


def _timeless(name: str, content: bytes) -> bytes:
    """A part of a .keras file without its date, and with small numbers for memory addresses."""
    if name == "metadata.json":
        return json.dumps({**json.loads(content), "date_saved": "1980-01-01@00:00:00"}).encode()
    if name == "config.json":
        numbers: dict[str, int] = {}
        return re.sub(
            r'(?<="shared_object_id": )\d+',
            lambda found: str(numbers.setdefault(found[0], len(numbers))),
            content.decode(),
        ).encode()
    return content


def _trunk(images: Any, params: NetworkParams) -> Any:
    x = layers.Rescaling(1 / 255, name="scale")(images)  # uint8 -> 0..1
    if params.stem_filters:
        x = _conv(x, params, params.stem_filters, params.stem_kernel_px, params.stem_stride, "stem")
    for i, (filters, pool) in enumerate(zip(params.filters, params.pools, strict=True), 1):
        for j in range(1, params.conv_depth + 1):
            x = _conv(x, params, filters, 3, 1, f"block{i}_{j}")
        if pool != (1, 1):
            x = layers.MaxPooling2D(pool, name=f"block{i}_pool")(x)
    return x


def _conv(x: Any, params: NetworkParams, filters: int, kernel_px: int, stride: int, name: str) -> Any:
    x = layers.Conv2D(
        filters,
        kernel_px,
        stride,
        padding="same",
        use_bias=params.conv_bias,
        kernel_initializer=params.initializer,
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(momentum=params.batch_norm_momentum, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


class LayerRow(NamedTuple):
    name: str
    type: str
    shape: tuple[int, ...]  # of the output, without B
    parameters: int


def layer_table(network: keras.Model) -> list[LayerRow]:
    """Layer by layer: name, type, output shape, parameters."""
    return [
        LayerRow(layer.name, type(layer).__name__, tuple(layer.output.shape[1:]), layer.count_params())
        for layer in network.layers
    ]
