"""One code on two engines. The group `jax` trains, saves, loads and predicts on JAX."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from captchalab.networks import backend
from captchalab.training.journal import read_history

pytestmark = pytest.mark.timeout(1800)  # the fixture alone takes a minute where nothing else runs
ENGINES = ("tensorflow", "jax")
SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
import test_fit as t
from captchalab import params, yaml
from captchalab.data import dataset
from captchalab.networks import backend, models
from captchalab.reading import decoding

engine = backend.start().backend.split()[0]
folder, verb = Path(sys.argv[1]), sys.argv[2]
smoke = params.check(yaml.parse((folder / "params.yaml").read_text()))
data = folder / "data"
for kind in params.KINDS:
    if verb == "train":
        t.fit(t.task(smoke, kind), t.paths(data, folder / engine / kind), {{}})
        # both engines fine-tune TensorFlow's weights
        start = folder / "tensorflow" / kind / "out" / "model.keras"
        t.fit(t.task(smoke, kind, "finetune"), t.paths(data, folder / f"{{engine}}-finetuned" / kind, start), {{}})
    else:
        images = np.asarray(dataset.load(data / "valid", smoke.captcha).images)
        for trained_on in ("tensorflow", "jax"):
            network = models.load(folder / trained_on / kind / "out" / "model.keras")
            predictions = decoding.greedy(kind, network.logits(images), smoke.captcha.alphabet)
            print(json.dumps([engine, kind, trained_on, [found.text for found in predictions]]))
"""


def run(engine: str, folder: Path, verb: str) -> subprocess.CompletedProcess:
    script = SCRIPT.format(tests=str(Path(__file__).parents[1] / "training"))
    environment = {**os.environ, "KERAS_BACKEND": engine}
    done = subprocess.run([sys.executable, "-c", script, folder, verb], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(smoke, smoke_text, tmp_path_factory) -> Path:
    """Both networks trained on each engine."""
    from captchalab.data import dataset
    from captchalab.params import SplitParams

    folder = tmp_path_factory.mktemp("engines")
    (folder / "params.yaml").write_text(smoke_text)
    for split, images in (("train", 128), ("valid", 48)):
        dataset.generate(smoke.captcha, split, SplitParams(images=images), 1, folder / "data" / split, workers=1)
    for engine in ENGINES:
        run(engine, folder, "train")
    return folder


@pytest.fixture(scope="module")
def predictions(folder) -> dict[str, subprocess.CompletedProcess]:
    """Each engine predicts with the networks of both, in a new process."""
    return {engine: run(engine, folder, "predict") for engine in ENGINES}


@pytest.mark.jax
@pytest.mark.parametrize("kind", ["cnn", "ctc"])
def test_jax_trains(folder, kind):
    rows = read_history(folder / "jax" / kind / "out" / "history.csv")
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


@pytest.mark.jax
@pytest.mark.parametrize("kind", ["cnn", "ctc"])
def test_from_the_same_weights_both_engines_train_alike(folder, kind):
    a, b = (read_history(folder / f"{engine}-finetuned" / kind / "out" / "history.csv") for engine in ENGINES)
    for one, other in zip(a, b, strict=True):
        assert one["images_seen"] == other["images_seen"]
        assert one["learning_rate"] == pytest.approx(other["learning_rate"])
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=0.01)
        assert one["val/loss"] == pytest.approx(other["val/loss"], rel=0.01)


@pytest.mark.jax
def test_weights_of_one_engine_predict_the_same_on_the_other(predictions):
    texts = {}
    for engine, done in predictions.items():
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        assert {used for used, *_ in lines} == {engine}
        texts[engine] = {(kind, trained_on): found for _, kind, trained_on, found in lines}
    assert len(texts["jax"]) == 4
    assert texts["jax"] == texts["tensorflow"]


GPU = ["NVIDIA H100 80GB HBM3"]


@pytest.mark.parametrize(
    ("engine", "sees", "driver_knows", "environment", "remedy"),
    [
        ("tensorflow", [], GPU, {}, "make setup GPU=1"),
        ("tensorflow", [], GPU, {"CUDA_VISIBLE_DEVICES": "0"}, "make setup GPU=1"),
        ("jax", [], GPU, {}, "jax[cuda12]"),
        ("tensorflow", [], GPU, {"JAX_PLATFORMS": "cpu"}, "make setup GPU=1"),
        ("tensorflow", GPU, GPU, {}, None),
        ("tensorflow", [], [], {}, None),
        ("jax", ["TPU v5"], [], {}, None),
        ("tensorflow", [], GPU, {"CUDA_VISIBLE_DEVICES": ""}, None),  # hidden on purpose
        ("tensorflow", [], GPU, {"CUDA_VISIBLE_DEVICES": "-1"}, None),
        ("jax", [], GPU, {"JAX_PLATFORMS": "cpu"}, None),
    ],
)
def test_a_gpu_that_the_engine_does_not_see_is_one_sentence_with_the_remedy(
    engine, sees, driver_knows, environment, remedy
):
    warning = backend.unseen_gpu(engine, sees, driver_knows, environment)
    if remedy is None:
        assert warning is None
    else:
        assert warning and remedy in warning
        assert warning.startswith(f"This machine has an NVIDIA H100 80GB HBM3 that {engine} does not see")


def test_it_is_said_once_per_process(capfd, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(backend, "_nvidia_gpus", lambda: dict.fromkeys(GPU, 80 * 2**30))
    monkeypatch.setattr(backend, "_tensorflow_gpus", lambda visible: [])
    backend._warn.cache_clear()
    for _ in range(2):
        backend.start()
    stderr = capfd.readouterr().err
    assert stderr.count("make setup GPU=1") == 1
    assert stderr.startswith("captchalab: This machine has an NVIDIA H100")


def test_without_nvidias_driver_there_is_no_gpu_and_no_error(monkeypatch):
    import pynvml

    def absent():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)  # here it may exist
    assert backend._nvidia_gpus() == {}


def test_the_engines_start_up_messages_are_not_shown():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    script = "from captchalab.networks import backend; print(backend.start(1).backend)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tensorflow 2.")
    assert done.stderr == ""


def test_convolutions_are_onednns_on_every_cpu():
    """TensorFlow's own choice only where a CPU has AVX-512 VNNI: elsewhere training took 1.6 times as long."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow", "ONEDNN_VERBOSE": "1"}
    environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
    script = """
import numpy as np
from captchalab.networks import backend
backend.start()
backend.keras.ops.conv(np.ones((4, 32, 32, 16), np.float32), np.ones((3, 3, 16, 16), np.float32))
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "exec,cpu,convolution" in done.stdout
