"""Files of each format, and damaged ones: read as they always were, or refused in one sentence.

`fixtures/unnumbered` was written before files carried a format number, `fixtures/format1` by the code that
introduced it; see fixtures/make.py.
"""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from captchalab import files
from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.networks import backend, models
from captchalab.reading import predictor
from captchalab.reading.captcha import KINDS, CaptchaParams
from captchalab.reading.decoding import Prediction, greedy
from captchalab.reading.errors import UnreadableError
from captchalab.reading.sealing import PLACEHOLDER, seal

FIXTURES = Path(__file__).parent / "fixtures"
FORMATS = [FIXTURES / "unnumbered", FIXTURES / "format1"]
NEWEST = FORMATS[-1]
CAPTCHA = CaptchaParams(alphabet="0123456789", length=2, width_px=32, height_px=16, channels=1)


@pytest.fixture(params=FORMATS, ids=lambda folder: folder.name)
def folder(request) -> Path:
    return request.param


def images(folder: Path) -> np.ndarray:
    return np.asarray(dataset.load(folder / "split", CAPTCHA).images)


def as_recorded(predictions: list[Prediction], folder: Path, kind: str) -> bool:
    recorded = files.read_json(folder / "predictions.json")[kind]
    assert len(predictions) == len(recorded) == 8
    return all(
        (found.text, found.confidence) == (text, pytest.approx(confidence, abs=1e-3))
        for found, (text, confidence) in zip(predictions, recorded, strict=True)
    )


def test_a_split_loads(folder):
    data = dataset.load(folder / "split", CAPTCHA)
    assert (data.images.shape, data.texts(slice(2))) == ((8, 16, 32, 1), ["18", "32"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_keras_file_predicts_what_it_did_when_it_was_written(folder, kind):
    backend.start(1)
    network = models.load(folder / f"{kind}.keras")
    assert (network.kind, network.captcha) == (kind, CAPTCHA)
    assert as_recorded(greedy(kind, network.logits(images(folder)), CAPTCHA.alphabet), folder, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_onnx_file_predicts_what_it_did_when_it_was_written(folder, kind):
    network = predictor.load(folder / f"{kind}.onnx")
    assert (network.kind, network.captcha) == (kind, CAPTCHA)
    assert as_recorded(list(network.predict(images(folder))), folder, kind)


def test_todays_files_carry_todays_numbers():
    meta = files.read_json(NEWEST / "split" / "meta.json")
    with zipfile.ZipFile(NEWEST / "cnn.keras") as saved:
        described = json.loads(saved.read(models.ENTRY))
    about = {prop.key: prop.value for prop in onnx.load(NEWEST / "cnn.onnx").metadata_props}
    assert (meta["format"], described["format"]) == (dataset.FORMAT, models.FORMAT)
    assert about["format"] == str(predictor.FORMAT)


REFUSED = "has format 2, and this captchalab reads formats up to 1: use the captchalab that wrote it, or a newer one."


def test_a_split_of_a_newer_format_is_refused(tmp_path):
    shutil.copytree(NEWEST / "split", tmp_path / "split")
    meta = files.read_json(tmp_path / "split" / "meta.json")
    files.write_json(tmp_path / "split" / "meta.json", {**meta, "format": 2, "colours": 7})
    with pytest.raises(UserError, match=f"meta.json {REFUSED}"):
        dataset.load(tmp_path / "split", CAPTCHA)


def test_a_keras_file_of_a_newer_format_is_refused(tmp_path):
    newer = tmp_path / "model.keras"
    with zipfile.ZipFile(NEWEST / "cnn.keras") as source, zipfile.ZipFile(newer, "w") as target:
        described = {**json.loads(source.read(models.ENTRY)), "format": 2, "colours": 7}
        target.writestr(models.ENTRY, json.dumps(described))
    with pytest.raises(UserError, match=f"model.keras {REFUSED}"):
        models.load(newer)


def test_an_onnx_file_of_a_newer_format_is_refused(tmp_path):
    newer = onnx.load(NEWEST / "cnn.onnx")
    onnx.helper.set_model_props(newer, {"format": "2", "digest": PLACEHOLDER})
    (tmp_path / "model.onnx").write_bytes(seal(newer.SerializeToString()))
    with pytest.raises(UnreadableError, match=f"model.onnx {REFUSED}"):
        predictor.load(tmp_path / "model.onnx")


def truncate(path: Path, to: int | None = None) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 if to is None else to])


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("to", [None, 0, 5, 130])
def test_a_truncated_array_is_named(tmp_path, name, to):
    shutil.copytree(NEWEST / "split", tmp_path / "split")
    truncate(tmp_path / "split" / name, to)
    with pytest.raises(UserError, match=f"split/{name} is truncated or altered: delete the folder and draw it again"):
        dataset.load(tmp_path / "split", CAPTCHA)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_a_missing_array_is_named(tmp_path, name):
    shutil.copytree(NEWEST / "split", tmp_path / "split")
    (tmp_path / "split" / name).unlink()
    with pytest.raises(UserError, match=f"split/{name} is missing: delete the folder and draw it again"):
        dataset.load(tmp_path / "split", CAPTCHA)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_an_altered_array_is_found_by_the_splits_digest(tmp_path, name):
    shutil.copytree(NEWEST / "split", tmp_path / "split")
    flip(tmp_path / "split" / name, -1)
    with pytest.raises(UserError, match=r"images.npy or labels.npy is not as it was drawn, by the digest in meta.json"):
        dataset.load(tmp_path / "split", CAPTCHA)


def test_an_array_of_another_shape_is_found_although_its_bytes_are_the_same(tmp_path):
    shutil.copytree(NEWEST / "split", tmp_path / "split")
    np.save(tmp_path / "split" / "images.npy", images(NEWEST).reshape(8, 32, 16, 1))
    with pytest.raises(UserError, match="is not as it was drawn"):
        dataset.load(tmp_path / "split", CAPTCHA)


@pytest.mark.parametrize("to", [30, 1000, None])
def test_a_truncated_keras_file_is_named(folder, tmp_path, to):
    shutil.copyfile(folder / "ctc.keras", tmp_path / "model.keras")
    truncate(tmp_path / "model.keras", to)
    with pytest.raises(UserError, match="model.keras is truncated or altered: delete it and train it again"):
        models.load(tmp_path / "model.keras")


@pytest.mark.parametrize("to", [0, 1000, None])
def test_a_truncated_onnx_file_is_named(folder, tmp_path, to):
    shutil.copyfile(folder / "ctc.onnx", tmp_path / "model.onnx")
    truncate(tmp_path / "model.onnx", to)
    with pytest.raises(UnreadableError, match="model.onnx is no network exported by captchalab, or is damaged"):
        predictor.load(tmp_path / "model.onnx")


def test_an_altered_weight_of_an_onnx_file_is_found_by_its_digest(tmp_path):
    network = onnx.load(NEWEST / "cnn.onnx")
    weight = max(network.graph.initializer, key=lambda one: len(one.raw_data))
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    onnx.save(network, tmp_path / "model.onnx")
    with pytest.raises(UnreadableError, match="model.onnx is not as it was written, by its digest: delete it"):
        predictor.load(tmp_path / "model.onnx")


def test_a_changed_bit_anywhere_in_a_keras_file_is_found_or_changes_nothing(tmp_path):
    original = zipfile.ZipFile(NEWEST / "cnn.keras")
    copy, found = tmp_path / "model.keras", 0
    positions = range(0, (NEWEST / "cnn.keras").stat().st_size, 97)
    for at in positions:
        shutil.copyfile(NEWEST / "cnn.keras", copy)
        flip(copy, at)
        try:
            models.describe(copy)
        except UserError:
            found += 1
        else:
            with zipfile.ZipFile(copy) as altered:
                for name in original.namelist():
                    assert altered.read(name) == original.read(name), f"byte {at} of {name} changed unseen"
    assert found > 0.9 * len(positions)


def test_a_changed_bit_anywhere_in_an_onnx_file_is_found_or_changes_nothing(tmp_path):
    copy, found = tmp_path / "model.onnx", 0
    positions = range(0, (NEWEST / "cnn.onnx").stat().st_size, 151)
    expected = predictor.load(NEWEST / "cnn.onnx").logits(images(NEWEST))
    for at in positions:
        shutil.copyfile(NEWEST / "cnn.onnx", copy)
        flip(copy, at)
        try:
            network = predictor.load(copy)
        except UnreadableError:
            found += 1
        else:
            assert np.array_equal(network.logits(images(NEWEST)), expected), f"byte {at} changed unseen"
    assert found > 0.9 * len(positions)
