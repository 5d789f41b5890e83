"""Pictures in, texts and confidences out, without Keras or MLflow."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from captchalab.data.rendering import draw_text
from captchalab.errors import UserError
from captchalab.params import KINDS
from captchalab.reading import predictor
from captchalab.reading.decoding import text_log_probability


@pytest.fixture(scope="module", params=KINDS)
def reader(request, untrained) -> predictor.OnnxReader:
    return predictor.load(untrained[request.param] / "export" / "model.onnx")


def png(smoke, text: str = "AB12", mode: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(draw_text(smoke.captcha, text, 1, 0)[..., 0]).save(content, mode)
    return content.getvalue()


def test_a_reading_has_text_and_confidences(reader, smoke):
    [reading] = predictor.read_bytes(reader, [("a.png", png(smoke))])
    assert 0 <= reading.confidence <= 1
    assert len(reading.characters) == len(reading.text)
    assert all(reading.confidence <= confidence <= 1 for confidence in reading.characters)


def test_jpeg_is_read_as_well(reader, smoke):
    [reading] = predictor.read_bytes(reader, [("a.jpg", png(smoke, mode="JPEG"))])
    assert isinstance(reading, predictor.Reading)


def test_sixteen_bits_are_read_as_eight(smoke):
    eight = predictor.pixels("a.png", png(smoke), smoke.captcha)
    content = io.BytesIO()
    Image.fromarray(eight[..., 0].astype(np.uint16) * 257).save(content, "PNG")
    assert np.array_equal(predictor.pixels("b.png", content.getvalue(), smoke.captcha), eight)


def test_one_that_cannot_be_read_spoils_no_other(reader, smoke):
    found = predictor.read_bytes(reader, [("a", b"no picture"), ("b", png(smoke)), ("c", png(smoke)[:200])])
    assert [type(reading) for reading in found] == [UserError, predictor.Reading, UserError]
    assert "a is no picture that can be read" in str(found[0])


def test_other_formats_than_png_and_jpeg_are_no_pictures(reader, smoke):
    [found] = predictor.read_bytes(reader, [("a.bmp", png(smoke, mode="BMP"))])
    assert "give a PNG or JPEG file" in str(found)


def test_a_characters_confidence_is_its_share_of_the_texts_that_differ_there_alone():
    alphabet, T = "ab", 5
    logits = np.random.default_rng(3).normal(size=(T, 3))
    [first, second] = predictor.character_confidences("ctc", logits, "ab", alphabet)
    ab, bb, aa = np.exp(text_log_probability("ctc", np.stack([logits] * 3), ["ab", "bb", "aa"], alphabet))
    assert first == pytest.approx(ab / (ab + bb))
    assert second == pytest.approx(ab / (ab + aa))


def test_for_a_cnn_that_is_the_softmax():
    logits = np.log([[0.9, 0.1], [0.3, 0.7]])
    assert predictor.character_confidences("cnn", logits, "ab", "ab") == pytest.approx([0.9, 0.7])


def test_an_empty_reading_has_no_characters():
    assert predictor.character_confidences("ctc", np.zeros((5, 3)), "", "ab") == []


@pytest.mark.parametrize("content", [b"", b"no onnx file"])
def test_a_file_that_is_no_exported_network_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match="is no network exported by captchalab"):
        predictor.load(tmp_path / "model.onnx")


def test_reading_imports_neither_keras_nor_mlflow(untrained):
    script = (
        "import sys; from pathlib import Path; from captchalab import predictor\n"
        "predictor.load(Path(sys.argv[1]))\n"
        "print(sorted({'keras', 'tensorflow', 'mlflow', 'jax', 'matplotlib'} & set(sys.modules)))"
    )
    onnx = untrained["ctc"] / "export" / "model.onnx"
    done = subprocess.run([sys.executable, "-c", script, onnx], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
