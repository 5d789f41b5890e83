"""Keras networks as ONNX graphs, a bidirectional GRU as one node.

tf2onnx, through which Keras converts, makes of each GRU a loop of some thirty small nodes per time step. So
a network is cut at its GRUs: Keras converts what lies between, and a GRU becomes ONNX's node of that name,
whose `linear_before_reset` is Keras' `reset_after`. What cannot be cut so is left to Keras whole.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from captchalab.networks.backend import keras

OPSET = 15  # Keras' own choice for TensorFlow
IR = helper.find_min_ir_version_for([helper.make_opsetid("", OPSET)])


def convert(model: keras.Model) -> onnx.ModelProto:
    """The graph of a network with one input (B, ...) and one output (B, ...)."""
    try:
        parts = _parts(model)
    except ValueError:  # Keras': some path leads past a GRU
        parts = [model]
    graphs = [_node(part) if _is_gru(part) else _converted(part) for part in parts]
    joined = graphs[0]
    for i, graph in enumerate(graphs[1:], 1):
        after = compose.add_prefix(graph, f"part{i}/")
        joined = compose.merge_models(joined, after, [(joined.graph.output[0].name, after.graph.input[0].name)])
    versions = {opset.domain: opset for opset in joined.opset_import}  # of each part
    del joined.opset_import[:]
    joined.opset_import.extend(versions.values())
    for value in (joined.graph.input[0], joined.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    return joined


def _parts(model: keras.Model) -> list[Any]:
    """A network as a chain: its GRU layers, and models of what is before, between and after them."""
    parts, reached = [], model.inputs[0]
    for gru in filter(_is_gru, model.layers):
        if gru.input is not reached:
            parts.append(keras.Model(reached, gru.input))
        parts.append(gru)
        reached = gru.output
    if reached is not model.outputs[0]:
        parts.append(keras.Model(reached, model.outputs[0]))
    return parts


def _is_gru(layer: Any) -> bool:
    """Whether a layer computes what ONNX's node does: both directions, every time step, Keras' default cell."""
    if not isinstance(layer, keras.layers.Bidirectional) or not isinstance(layer.forward_layer, keras.layers.GRU):
        return False
    wanted = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True, "reset_after": True}
    wanted |= {"return_sequences": True, "return_state": False, "go_backwards": False}
    config = layer.forward_layer.get_config()
    return layer.merge_mode == "concat" and all(config[name] == value for name, value in wanted.items())


def _converted(model: keras.Model) -> onnx.ModelProto:
    model(np.zeros((1, *model.inputs[0].shape[1:]), model.inputs[0].dtype))  # Keras exports what has been called
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False, opset_version=OPSET)
        return onnx.load(path)


def _node(layer: Any) -> onnx.ModelProto:
    """A bidirectional GRU, (B, T, F) -> (B, T, 2*H). The gates z, r, h are in the same order in both libraries."""
    cells = (layer.forward_layer.cell, layer.backward_layer.cell)
    _, T, F = layer.input.shape
    H = cells[0].units
    of_both = {
        "W": [np.array(cell.kernel).T for cell in cells],  # (2, 3*H, F)
        "R": [np.array(cell.recurrent_kernel).T for cell in cells],  # (2, 3*H, H)
        "B": [np.array(cell.bias).reshape(-1) for cell in cells],  # (2, 6*H): of the input, then of the state
    }
    weights = {name: np.stack(arrays) for name, arrays in of_both.items()}
    shape = np.array([0, 0, 2 * H], np.int64)  # 0 keeps B and T
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),  # (T, B, F)
        helper.make_node(  # (T, 2, B, H)
            "GRU", ["steps", *weights], ["states"], hidden_size=H, direction="bidirectional", linear_before_reset=1
        ),
        helper.make_node("Transpose", ["states"], ["by_image"], perm=[2, 0, 1, 3]),  # (B, T, 2, H)
        helper.make_node("Reshape", ["by_image", "shape"], ["y"]),  # (B, T, 2*H)
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in [*weights.items(), ("shape", shape)]]
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", T, width])
        for name, width in (("x", F), ("y", 2 * H))
    )
    graph = helper.make_graph(nodes, layer.name, [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
