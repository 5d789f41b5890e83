"""Images in, texts and confidences out, without Keras or MLflow."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from captchalab.data.rendering import draw_text
from captchalab.reading import predictor
from captchalab.reading.captcha import KINDS
from captchalab.reading.decoding import Prediction, text_log_probability
from captchalab.reading.errors import UnreadableError


@pytest.fixture(scope="module", params=KINDS)
def network(request, untrained) -> predictor.Predictor:
    return predictor.load(untrained[request.param] / "export" / "model.onnx")


def png(smoke, text: str = "AB12", mode: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(draw_text(smoke.captcha, text, 1, 0)[..., 0]).save(content, mode)
    return content.getvalue()


def test_a_prediction_has_text_and_confidences(network, smoke):
    [prediction] = predictor.predict_bytes(network, [("a.png", png(smoke))])
    assert 0 <= prediction.confidence <= 1
    assert len(prediction.characters) == len(prediction.text)
    assert all(prediction.confidence <= confidence <= 1 for confidence in prediction.characters)


def test_jpeg_is_read_as_well(network, smoke):
    [prediction] = predictor.predict_bytes(network, [("a.jpg", png(smoke, mode="JPEG"))])
    assert isinstance(prediction, Prediction)


def test_sixteen_bits_are_read_as_eight(smoke):
    eight = predictor.pixels("a.png", png(smoke), smoke.captcha)
    content = io.BytesIO()
    Image.fromarray(eight[..., 0].astype(np.uint16) * 257).save(content, "PNG")
    assert np.array_equal(predictor.pixels("b.png", content.getvalue(), smoke.captcha), eight)


def test_one_that_cannot_be_read_spoils_no_other(network, smoke):
    found = predictor.predict_bytes(network, [("a", b"no image"), ("b", png(smoke)), ("c", png(smoke)[:200])])
    assert [type(prediction) for prediction in found] == [UnreadableError, Prediction, UnreadableError]
    assert "a cannot be read as an image" in str(found[0])


def test_other_formats_than_png_and_jpeg_are_refused(network, smoke):
    [found] = predictor.predict_bytes(network, [("a.bmp", png(smoke, mode="BMP"))])
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


def test_an_empty_text_has_no_characters():
    assert predictor.character_confidences("ctc", np.zeros((5, 3)), "", "ab") == []


@pytest.mark.parametrize("content", [b"", b"no onnx file"])
def test_a_file_that_is_no_exported_network_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UnreadableError, match="is no network exported by captchalab, or is damaged"):
        predictor.load(tmp_path / "model.onnx")


def test_reading_imports_neither_keras_nor_mlflow(untrained):
    script = (
        "import sys; from pathlib import Path; from captchalab.reading import predictor\n"
        "predictor.load(Path(sys.argv[1]))\n"
        "print(sorted({'keras', 'tensorflow', 'mlflow', 'jax', 'matplotlib'} & set(sys.modules)))"
    )
    onnx = untrained["ctc"] / "export" / "model.onnx"
    done = subprocess.run([sys.executable, "-c", script, onnx], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
