"""Keras networks as ONNX graphs: the same outputs, and a GRU as one node wherever that is possible."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from captchalab.networks import backend

backend.start(1)
from captchalab.networks import conversion, models  # noqa: E402
from captchalab.networks.backend import keras  # noqa: E402

SEQUENCES = np.random.default_rng(1).normal(size=(3, 6, 5)).astype(np.float32)  # (B, T, F)


def converted(model: keras.Model, inputs: np.ndarray) -> Counter:
    """How often each operator is in the graph, which gives what Keras gives."""
    graph = conversion.convert(model)
    onnx.checker.check_model(graph)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for n in (1, len(inputs)):
        [outputs] = session.run(None, {session.get_inputs()[0].name: inputs[:n]})
        assert outputs == pytest.approx(np.asarray(model(inputs[:n])), abs=1e-5)
    return Counter(node.op_type for node in graph.graph.node)


def bidirectional(**changed) -> keras.layers.Layer:
    settings = {"return_sequences": True, "bias_initializer": "random_normal", **changed}
    return keras.layers.Bidirectional(keras.layers.GRU(4, **settings))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_ctc_network_has_one_node_per_gru_layer_and_no_loop(smoke, layers):
    network = models.build("ctc", smoke.captcha, smoke.network("ctc").model_copy(update={"rnn_layers": layers}))
    images = np.random.default_rng(2).integers(0, 255, (3, *smoke.captcha.image_shape), np.uint8)
    nodes = converted(network.model, images)
    assert (nodes["GRU"], nodes["Loop"]) == (layers, 0)


def test_a_gru_may_be_all_there_is():
    inputs = keras.Input((6, 5))
    assert converted(keras.Model(inputs, bidirectional()(inputs)), SEQUENCES)["GRU"] == 1


@pytest.mark.parametrize("changed", [{"reset_after": False}, {"activation": "relu"}, {"return_sequences": False}])
def test_one_that_computes_something_else_stays_a_loop(changed):
    inputs = keras.Input((6, 5))
    nodes = converted(keras.Model(inputs, bidirectional(**changed)(inputs)), SEQUENCES)
    assert (nodes["GRU"], nodes["Loop"]) == (0, 2)


def test_so_does_one_with_a_path_around_it():
    inputs = keras.Input((6, 5))
    hidden = keras.layers.Dense(8)(inputs)
    outputs = keras.layers.Add()([hidden, bidirectional()(hidden)])
    assert converted(keras.Model(inputs, outputs), SEQUENCES)["GRU"] == 0
