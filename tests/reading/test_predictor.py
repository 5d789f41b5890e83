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
from captchalab.reading.decoding import Prediction
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


def test_images_are_predicted_the_same_alone_and_together(network, smoke, monkeypatch):
    images = np.stack([draw_text(smoke.captcha, "AB12", 1, i) for i in range(5)])
    monkeypatch.setattr(predictor, "BATCH_IMAGES", 2)
    together = list(network.predict(images))
    assert len(together) == 5
    for i, prediction in enumerate(together):
        [alone] = network.predict(images[i : i + 1])
        assert alone.text == prediction.text
        assert alone.characters == pytest.approx(prediction.characters, abs=1e-5)


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
