"""ONNX's reference with the convolutions of PyTorch gives what it gives with its own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from graphsurgery.find.convolution import evaluator_in_float64


@pytest.mark.parametrize(
    "attributes",
    [{}, {"pads": [1, 0, 2, 3], "strides": [2, 1]}, {"dilations": [2, 1], "group": 2}, {"auto_pad": "SAME_UPPER"}],
    ids=["plain", "padded", "grouped", "automatic"],
)
def test_it_is_the_same_function(attributes: dict[str, object]) -> None:
    draw = np.random.default_rng(0).standard_normal
    values = {
        "w": draw((6, 4 // int(str(attributes.get("group", 1))), 3, 3)),
        "b": draw(6),
    }
    double = onnx.TensorProto.DOUBLE
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)],
        "convolution",
        [helper.make_tensor_value_info("x", double, [1, 4, 9, 8])],
        [helper.make_tensor_value_info("y", double, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = {"x": draw((1, 4, 9, 8))}
    (expected,) = ReferenceEvaluator(model).run(None, x)
    (given,) = evaluator_in_float64(model).run(None, x)
    np.testing.assert_allclose(given, expected, rtol=1e-12, atol=1e-12)
