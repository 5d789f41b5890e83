"""The optimizers of params.yaml: which weights Muon updates, and how."""

import numpy as np
import pytest

from captchalab.networks import backend
from captchalab.networks.backend import keras
from captchalab.params import Params
from captchalab.training import optimizers

SHAPES = {"convolution": (3, 3, 8, 16), "recurrent": (16, 24), "bias": (16,)}


@pytest.fixture(scope="module")
def step(smoke: Params):
    """What one step at the learning rate 1e-3, without weight decay, adds to each weight of 0."""
    backend.start()
    rng = np.random.default_rng(1)
    gradients = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    gradients["convolution"] *= np.geomspace(1, 100, 16)  # directions of very different strength

    def updates(name: str, muon_rms: float = 0.2) -> dict[str, np.ndarray]:
        stage = smoke.train.cnn.model_copy(
            update={
                "optimizer": name,
                "schedule": "constant",
                "weight_decay": 0.0,
                "clip_norm": 0.0,
                "muon_rms": muon_rms,
            }
        )
        optimizer = optimizers.build(stage)
        variables = {name: keras.Variable(np.zeros(shape, "float32"), name=name) for name, shape in SHAPES.items()}
        optimizer.build(list(variables.values()))
        optimizer.apply_gradients((gradients[name].astype("float32"), variables[name]) for name in SHAPES)
        return {name: keras.ops.convert_to_numpy(variable) for name, variable in variables.items()}

    return updates


def test_muon_moves_a_convolution_kernel_alike_in_every_direction(step):
    update = step("muon")["convolution"].reshape(-1, 16)
    singular = np.linalg.svd(update, compute_uv=False)
    assert singular.max() / singular.min() < 2


@pytest.mark.parametrize("rms", [0.2, 0.8])
def test_muon_moves_a_weight_by_its_rms_times_the_learning_rate(step, rms):
    moved = np.sqrt(np.mean(step("muon", muon_rms=rms)["convolution"] ** 2))
    assert 0.75 * rms * 1e-3 < moved < 1.25 * rms * 1e-3


@pytest.mark.parametrize("name", ["recurrent", "bias"])
def test_muon_leaves_other_weights_to_adamw(step, name):
    np.testing.assert_allclose(step("muon")[name], step("adamw")[name], rtol=1e-6)


def test_weight_decay_shrinks_kernels_and_other_weights_alike(smoke):
    stage = smoke.train.cnn.model_copy(
        update={"optimizer": "muon", "muon_rms": 0.2, "schedule": "constant", "weight_decay": 0.5}
    )
    optimizer = optimizers.build(stage)
    kernel, dense = (keras.Variable(np.ones(shape, "float32")) for shape in ((3, 3, 8, 16), (16, 24)))
    optimizer.build([kernel, dense])
    optimizer.apply_gradients((np.zeros(variable.shape, "float32"), variable) for variable in (kernel, dense))
    for variable in (kernel, dense):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), 1 - 0.5 * stage.learning_rate, rtol=1e-5)


def test_the_schedule_warms_up_and_ends_where_the_stage_ends(smoke):
    stage = smoke.train.cnn.model_copy(
        update={"schedule": "cosine", "warmup_steps": 10, "epochs": 10, "steps_per_epoch": 10}
    )
    rate = optimizers.build(stage)._learning_rate
    assert float(rate(0)) == 0
    assert float(rate(10)) == pytest.approx(stage.learning_rate)
    assert float(rate(100)) == pytest.approx(stage.final_learning_rate)
