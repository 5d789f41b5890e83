import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from captchalab import params, profiles, yaml
from captchalab.errors import UserError
from captchalab.networks import backend
from captchalab.project import Project
from captchalab.reading import decoding


@pytest.fixture(scope="module")
def models():
    backend.start(1)
    from captchalab.networks import models

    return models


@pytest.fixture(scope="module")
def reference(root, smoke_text):
    return params.check(yaml.parse(profiles.merged(smoke_text, Project(root), "reference")))


@pytest.fixture(scope="module")
def images(smoke):
    from captchalab.data.rendering import draw_random

    return np.stack([draw_random(smoke.captcha, 1, "test", i)[1] for i in range(8)])


@pytest.mark.parametrize(("kind", "total", "trainable"), [("cnn", 2_653_360, 2_650_416), ("ctc", 3_157_317, 3_154_373)])
def test_with_the_reference_profile_the_networks_are_the_references(models, reference, kind, total, trainable):
    network = models.build(kind, reference.captcha, reference.network(kind)).model
    assert network.count_params() == total
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == trainable


@pytest.mark.parametrize(("kind", "shape"), [("cnn", (8, 4, 36)), ("ctc", (8, 32, 37))])
def test_images_go_in_as_bytes_and_logits_come_out_in_float32(models, smoke, images, kind, shape):
    network = models.build(kind, smoke.captcha, smoke.network(kind))
    assert network.model.inputs[0].dtype == "uint8"
    logits = network.logits(images)
    assert logits.dtype == np.float32
    assert logits.shape == shape


def test_logits_stay_float32_under_a_mixed_policy(models, smoke):
    import keras

    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        for kind in params.KINDS:
            network = models.build(kind, smoke.captcha, smoke.network(kind)).model
            assert network.outputs[0].dtype == "float32"
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize("kind", ["cnn", "ctc"])
def test_in_bfloat16_the_trunk_alone_computes_and_every_weight_is_float32(models, smoke, images, kind):
    network = models.build(kind, smoke.captcha, smoke.network(kind))
    mixed = models.with_precision(network, "bfloat16")
    in_trunk = [layer for layer in mixed.model.layers if layer.compute_dtype == "bfloat16"]
    assert {layer.name.split("_")[0] for layer in in_trunk} == {"scale", "stem", "block1", "block2"}
    assert {weight.dtype for weight in mixed.model.weights} == {"float32"}
    logits = mixed.logits(images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, network.logits(images), rtol=0.1, atol=0.05)


def test_back_in_float32_a_network_reads_as_before(models, smoke, images):
    network = models.build("ctc", smoke.captcha, smoke.network("ctc"))
    there_and_back = models.with_precision(models.with_precision(network, "bfloat16"), "float32")
    np.testing.assert_array_equal(there_and_back.logits(images), network.logits(images))


def test_other_sizes_lengths_and_alphabets_make_a_network(models, smoke):
    captcha = smoke.captcha.model_copy(
        update={"width_px": 170, "height_px": 80, "channels": 3, "length": 5, "alphabet": "abcdef"}
    )
    for kind in params.KINDS:
        network = models.build(kind, captcha, smoke.network(kind)).model
        assert network.input_shape == (None, 80, 170, 3)
        assert network.output_shape[-1] == (6 if kind == "cnn" else 7)


@pytest.mark.parametrize("kind", params.KINDS)
def test_the_loss_is_the_negative_log_probability_of_the_text(models, smoke, images, kind):
    """Keras' losses against NumPy's decoding, which is held to brute force elsewhere."""
    import keras

    network = models.build(kind, smoke.captcha, smoke.network(kind))
    logits = network.logits(images)
    texts = ["AB12", "0000", "ZZ9Z", "QWER", "0O0O", "AAAB", "1234", "XYZX"]
    labels = np.stack([[smoke.captcha.alphabet.index(c) for c in text] for text in texts]).astype(np.uint8)
    loss = keras.ops.convert_to_numpy(models.LOSSES[kind](labels, keras.ops.convert_to_tensor(logits)))
    expected = -decoding.text_log_probability(kind, logits, texts, smoke.captcha.alphabet)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_no_lambda_layers(models, smoke, reference):
    for source in (smoke, reference):
        for kind in params.KINDS:
            network = models.build(kind, source.captcha, source.network(kind)).model
            assert "Lambda" not in {type(layer).__name__ for layer in network.layers}


@pytest.mark.parametrize("kind", params.KINDS)
def test_a_saved_network_reads_the_same_in_a_new_process(models, smoke, images, tmp_path, kind):
    network = models.build(kind, smoke.captcha, smoke.network(kind))
    models.save(network, tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    script = """
import json, sys
import numpy as np
from pathlib import Path
from captchalab.networks import backend
from captchalab.project import Project
from captchalab.reading import decoding
backend.start()
from captchalab.networks import models
from captchalab.project import Project
network = models.load(Path(sys.argv[1]) / "model.keras")
logits = network.logits(np.load(Path(sys.argv[1]) / "images.npy"))
np.save(Path(sys.argv[1]) / "logits.npy", logits)
texts = [r.text for r in decoding.greedy(network.kind, logits, network.captcha.alphabet)]
print(json.dumps([network.kind, network.captcha.length, texts]))
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    expected = [r.text for r in decoding.greedy(kind, network.logits(images), smoke.captcha.alphabet)]
    assert json.loads(done.stdout.splitlines()[-1]) == [kind, 4, expected]
    assert np.allclose(np.load(tmp_path / "logits.npy"), network.logits(images), atol=1e-5)


def test_the_same_weights_give_the_same_bytes(models, smoke, tmp_path):
    network = models.build("ctc", smoke.captcha, smoke.network("ctc"))
    for name in ("a", "b"):
        models.save(network, tmp_path / name / "model.keras")
    assert (tmp_path / "a" / "model.keras").read_bytes() == (tmp_path / "b" / "model.keras").read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model.keras"]


def test_the_file_says_what_it_reads(models, smoke, tmp_path):
    models.save(models.build("ctc", smoke.captcha, smoke.network("ctc")), tmp_path / "model.keras")
    assert models.describe(tmp_path / "model.keras") == ("ctc", smoke.captcha)


def test_what_is_no_model_is_one_sentence(models, tmp_path):
    with pytest.raises(UserError, match="is missing: train it with `dvc repro`, or fetch it with `dvc pull`"):
        models.load(tmp_path / "model.keras")
    (tmp_path / "model.keras").write_text("text")
    with pytest.raises(UserError, match="is no model saved by captchalab"):
        models.load(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as other:
        other.writestr("config.json", "{}")
    with pytest.raises(UserError, match="is no model saved by captchalab"):
        models.load(tmp_path / "other.keras")
