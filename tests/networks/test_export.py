"""Keras models as ONNX files: the same texts, and a file that says what its outputs mean."""

import os
import subprocess
import sys

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
def test_both_predict_the_same_texts_on_the_whole_split(untrained, kind):
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
        export.write(model, {prop.key: prop.value for prop in model.metadata_props}, out)

    monkeypatch.setattr(export, "_convert", wrongly)
    with pytest.raises(UserError, match="does not predict the same as ONNX"):
        export.export(keras, test, tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(("largest", "allowed"), [(0.5, 1e-4), (10.0, 1e-4), (-40.0, 4e-4)])
def test_the_tolerance_grows_with_logits_whose_last_bits_are_larger(largest, allowed):
    assert export.tolerance(np.array([[[0.0, largest]]])) == pytest.approx(allowed)


@pytest.mark.parametrize(
    ("ours", "theirs", "tied"),
    [
        ([[1.0, 0.0]], [[0.9, 0.0]], True),  # the same choice everywhere
        ([[1.0, 1.0 - 5e-5]], [[1.0, 1.0 + 1e-5]], True),
        ([[1.0, 1.0 - 2e-4]], [[1.0, 1.0 + 1e-5]], False),
        ([[1.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 1.0 + 1e-5]], True),  # one place decides
        ([[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 1.0 + 1e-5]], False),  # and another is no tie
        ([[0.0, 1.0, 1.0 - 5e-5]], [[1.0, 1.0 - 1e-5, 1.0]], False),  # a class far off is not excused by a close one
    ],
)
def test_a_tie_is_where_the_classes_chosen_lie_within_the_tolerance(ours, theirs, tied):
    assert export.ties(np.array([ours]), np.array([theirs])).tolist() == [tied]


@pytest.mark.parametrize(
    ("change", "differ", "ties"),
    [((0.0, 0.0, 0.0), 0, 0), ((0.0, 5e-5, 0.0), 0, 1), ((0.0, -5e-5, 0.0), 0, 0), ((0.0, 0.0, 3.0), 1, 0)],
)
def test_parity_counts_ties_apart_from_texts_that_differ(change, differ, ties):
    ours = np.array([[[2.0, 2.0, 0.0]], [[0.0, 0.0, 9.0]]])
    theirs = ours + np.array([change, (0.0, 0.0, 0.0)])[:, None]
    parity = export.compare("cnn", ours, theirs, "abc")
    assert (parity["n"], parity["texts_that_differ"], parity["ties"]) == (2, differ, ties)
    assert parity["largest_logit_difference"] == pytest.approx(np.abs(change).max())


def test_a_network_with_two_equal_classes_is_exported(untrained, smoke, tmp_path, monkeypatch):
    """Two classes with the same weights, the best at every place: the engines' last bits choose between them."""
    from captchalab.networks import models

    network = models.load(untrained["cnn"] / "finetune" / "model.keras")
    K, L = len(smoke.captcha.alphabet), smoke.captcha.length
    kernel, bias = network.model.get_layer("characters").weights
    weights, offsets = np.array(kernel), np.array(bias).reshape(L, K)
    by_class = weights.reshape(-1, L, K)  # a view
    by_class[..., 7], offsets[:, 3:8:4] = by_class[..., 3], 100.0
    kernel.assign(weights)
    bias.assign(offsets.reshape(-1))
    models.save(network, tmp_path / "model.keras")
    convert = export._convert

    def with_other_last_bits(network, md5, out):
        convert(network, md5, out)
        model = onnx.load(out)
        [added] = [one for one in model.graph.initializer if list(one.dims) == [L * K]]
        offsets = onnx.numpy_helper.to_array(added).reshape(L, K).copy()
        offsets[:, 7] += 3e-5
        added.CopyFrom(onnx.numpy_helper.from_array(offsets.reshape(-1), added.name))
        export.write(model, {prop.key: prop.value for prop in model.metadata_props}, out)

    monkeypatch.setattr(export, "_convert", with_other_last_bits)
    test = untrained["cnn"].parents[1] / "data" / "test"
    parity = export.export(tmp_path / "model.keras", test, tmp_path / "export")
    assert (parity["n"], parity["texts_that_differ"], parity["ties"]) == (200, 0, 200)


def test_export_computes_with_tensorflow_on_the_cpu_whatever_the_process_was_started_with():
    script = (
        "from captchalab.networks import export; from captchalab.networks import backend\n"
        "print(backend.start(accelerators=False).accelerator, backend.ENGINE)\n"
        "import tensorflow as tf; print(tf.config.list_logical_devices('GPU'))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False tensorflow", "[]"]
