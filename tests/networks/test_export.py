"""Keras models as ONNX files: the same texts, and a file that says what its outputs mean."""

import numpy as np
import onnx
import pytest

from captchalab import files, params
from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.networks import export
from captchalab.reading import predictor
from captchalab.reading.captcha import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_both_read_the_same_texts_on_the_whole_split(untrained, kind):
    parity = files.read_json(untrained[kind] / "export" / "parity.json")
    assert (parity["n"], parity["texts_that_differ"]) == (200, 0)
    assert parity["largest_logit_difference"] <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_says_what_it_reads(untrained, smoke, kind):
    network = predictor.load(untrained[kind] / "export" / "model.onnx")
    assert (network.kind, network.captcha) == (kind, smoke.captcha)
    assert network.network_md5 == files.md5(untrained[kind] / "finetune" / "model.keras")


def test_any_number_of_images_can_be_read_at_once(untrained, smoke):
    network = predictor.load(untrained["ctc"] / "export" / "model.onnx")
    for n in (1, 3, 251):
        assert network.logits(np.zeros((n, *smoke.captcha.image_shape), np.uint8)).shape[0] == n


@pytest.mark.parametrize("kind", KINDS)
def test_other_captchas_can_be_exported_too(smoke, tmp_path, kind):
    from captchalab.networks import models

    captcha = params.CaptchaParams(alphabet="abcdefghij", length=5, width_px=170, height_px=80, channels=3)
    models.save(models.build(kind, captcha, smoke.network(kind)), tmp_path / "model.keras")
    dataset.generate(captcha, "test", params.SplitParams(images=8), 1, tmp_path / "test", workers=1)
    assert export.export(tmp_path / "model.keras", tmp_path / "test", tmp_path / "out")["texts_that_differ"] == 0
    assert predictor.load(tmp_path / "out" / "model.onnx").captcha == captcha


def test_a_file_that_reads_something_else_is_not_kept(untrained, tmp_path, monkeypatch):
    keras, test = untrained["cnn"] / "finetune" / "model.keras", untrained["cnn"].parents[1] / "data" / "test"
    convert = export._convert

    def wrongly(network, md5, out):
        convert(network, md5, out)
        model = onnx.load(out)
        for weight in model.graph.initializer:
            if len(weight.dims) == 2:
                weight.raw_data = onnx.numpy_helper.to_array(weight)[:, ::-1].tobytes()
        onnx.save(model, out)

    monkeypatch.setattr(export, "_convert", wrongly)
    with pytest.raises(UserError, match="does not read the same as ONNX"):
        export.export(keras, test, tmp_path / "export")
    assert not (tmp_path / "export").exists()
