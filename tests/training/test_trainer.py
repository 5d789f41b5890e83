"""The two ways to run the steps of an epoch train alike, on both engines, wherever the images are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from captchalab.data import batches, dataset
from captchalab.networks import backend, models
from captchalab.params import Params, check
from captchalab.reading.captcha import KINDS
from captchalab.training import fit, trainer

STEPS, BATCH = 8, 8
ON_CPU = backend.Device("tensorflow", "a CPU", False)
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_trainer
test_trainer.print_runs()
"""


def runs(params: Params) -> dict[str, dict[str, list[float]]]:
    """For each network and way: the loss of each step, and the weights' sums after the last."""
    found = {}
    for kind in KINDS:
        stage = params.stage("train", kind).model_copy(
            update={"optimizer": "muon", "muon_rms": 1.0, "schedule": "cosine", "batch_size": BATCH}
        )
        for way in ("one by one", "resident", "brought"):
            device = backend.start(seed=1)
            network = models.build(kind, params.captcha, params.network(kind))
            optimizer = fit._compile(network, stage, device)
            source = batches.Pool(captchas(params), BATCH, 1, "train")
            if way == "one by one":
                runner: trainer.Trainer = trainer.OneByOne(network, source)
            else:
                runner = trainer.Looped(network, optimizer, source, resident=way == "resident")
            losses = [*runner.losses(0, STEPS // 2), *runner.losses(STEPS // 2, STEPS // 2)]
            sums = [float(np.abs(weight).sum()) for weight in network.model.get_weights()]
            found[f"{kind} {way}"] = {"losses": losses, "weights": sums, "steps": [int(optimizer.iterations)]}
    return found


def captchas(params: Params) -> dataset.SplitData:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (40, *params.captcha.image_shape), np.uint8)
    labels = rng.integers(0, len(params.captcha.alphabet), (40, params.captcha.length), np.uint8)
    return dataset.SplitData(images, labels, {"alphabet": params.captcha.alphabet, "digest": ""})


def print_runs() -> None:
    print(json.dumps(runs(check(json.loads(sys.stdin.read())))))


@pytest.fixture(scope="module", params=["tensorflow", pytest.param("jax", marks=pytest.mark.jax)])
def found(request, smoke) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(tests=str(Path(__file__).parent))],
        env={**os.environ, "KERAS_BACKEND": request.param},
        input=smoke.model_dump_json(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["resident", "brought"])
def test_many_steps_in_a_call_train_as_one_by_one(found, kind, way):
    many, one = found[f"{kind} {way}"], found[f"{kind} one by one"]
    assert many["steps"] == one["steps"] == [STEPS]
    assert one["losses"][-1] != one["losses"][0]
    assert many["losses"] == pytest.approx(one["losses"], rel=2e-3)
    assert many["weights"] == pytest.approx(one["weights"], rel=2e-3)


def test_on_a_cpu_steps_are_run_one_by_one(smoke):
    network = models.build("cnn", smoke.captcha, smoke.network("cnn"))
    source = batches.Pool(captchas(smoke), BATCH, 1, "train")
    assert isinstance(trainer.build(network, None, source, ON_CPU), trainer.OneByOne)


@pytest.mark.parametrize(("memory_bytes", "resident"), [(0, False), (500_000, False), (1_000_000, True)])
def test_a_pool_stays_on_an_accelerator_with_twice_its_memory(smoke, memory_bytes, resident):
    pool = batches.Pool(captchas(smoke), BATCH, 1, "train")  # 40 images of 8 KiB
    assert trainer.fits(pool, backend.Device("jax", "a GPU", True, memory_bytes)) == resident
