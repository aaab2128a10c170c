"""Chains of constants that shapes depend on, every operator compared with onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphsurgery.graph.reference import evaluate
from graphsurgery.graph.shape_arithmetic import OPERATORS, compute
from graphsurgery.graph.shape_constants import fold_shapes
from tests import models

I64 = np.int64
VECTOR = np.array([7, -2, 3, 0], I64)
OPSETS = [helper.make_opsetid("", 17)]

CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Abs", [VECTOR], {}),
    ("Add", [VECTOR, np.array([1], I64)], {}),
    ("And", [np.array([True, False]), np.array([True, True])], {}),
    ("Ceil", [np.array([1.2, -1.2], np.float32)], {}),
    ("Div", [VECTOR, np.array([-2], I64)], {}),
    ("Floor", [np.array([1.2, -1.2], np.float32)], {}),
    ("Greater", [VECTOR, np.array([0], I64)], {}),
    ("GreaterOrEqual", [VECTOR, np.array([0], I64)], {}),
    ("Less", [VECTOR, np.array([0], I64)], {}),
    ("LessOrEqual", [VECTOR, np.array([0], I64)], {}),
    ("Max", [VECTOR, np.array([1], I64), np.array([2], I64)], {}),
    ("Min", [VECTOR, np.array([1], I64)], {}),
    ("Mod", [VECTOR, np.array([4], I64)], {}),
    ("Mod", [VECTOR, np.array([4], I64)], {"fmod": 1}),
    ("Neg", [VECTOR], {}),
    ("Not", [np.array([True, False])], {}),
    ("Or", [np.array([True, False]), np.array([False, False])], {}),
    ("Pow", [np.array([2.0, 3.0], np.float32), np.array([2], I64)], {}),
    ("ReduceMax", [VECTOR], {"keepdims": 0}),
    ("ReduceMin", [VECTOR.reshape(2, 2)], {"axes": [1]}),
    ("ReduceProd", [np.array([2, 3, 4], I64)], {"keepdims": 0}),
    ("ReduceSum", [VECTOR.reshape(2, 2), np.array([-1], I64)], {"keepdims": 0}),
    ("ReduceSum", [VECTOR, np.zeros(0, I64)], {"noop_with_empty_axes": 1}),
    ("Reshape", [VECTOR[:0].reshape(0, 4), np.array([0, 2, 2], I64)], {"allowzero": 0}),
    ("Round", [np.array([0.5, 1.5, -2.5], np.float32)], {}),
    ("Sqrt", [np.array([4.0, 2.0], np.float32)], {}),
    ("Cast", [np.array([1.7, -2.2], np.float32)], {"to": TensorProto.INT64}),
    ("Cast", [VECTOR], {"to": TensorProto.FLOAT16}),
    ("Concat", [VECTOR, VECTOR], {"axis": 0}),
    ("Concat", [VECTOR.reshape(2, 2), VECTOR.reshape(2, 2)], {"axis": -1}),
    ("ConstantOfShape", [np.array([2, 3], I64)], {}),
    ("ConstantOfShape", [np.array([4], I64)], {"value": numpy_helper.from_array(np.array([5], I64))}),
    ("Div", [VECTOR, np.array([2], I64)], {}),
    ("Div", [np.array([7, 9], I64), np.array([2, 3], I64)], {}),
    ("Div", [np.array([1.0, 3.0], np.float32), np.array([2.0], np.float32)], {}),
    ("Equal", [VECTOR, np.array([3], I64)], {}),
    ("Gather", [VECTOR, np.array(2, I64)], {}),
    ("Gather", [VECTOR.reshape(2, 2), np.array([1, 0], I64)], {"axis": 1}),
    ("Gather", [VECTOR, np.array([-1], I64)], {"axis": 0}),
    ("Identity", [VECTOR], {}),
    ("Mul", [VECTOR, np.array([2, 3, 4, 5], I64)], {}),
    ("Reshape", [VECTOR, np.array([-1, 2], I64)], {}),
    ("Reshape", [VECTOR.reshape(2, 2), np.array([0, 2, 1], I64)], {}),
    ("Slice", [VECTOR, np.array([1], I64), np.array([3], I64)], {}),
    (
        "Slice",
        [VECTOR, np.array([-1], I64), np.array([-(2**63) + 1], I64), np.array([0], I64), np.array([-1], I64)],
        {},
    ),
    ("Slice", [VECTOR.reshape(2, 2), np.array([0], I64), np.array([2**31], I64), np.array([1], I64)], {}),
    ("Squeeze", [VECTOR.reshape(1, 4), np.array([0], I64)], {}),
    ("Sub", [VECTOR, np.array([1], I64)], {}),
    ("Transpose", [VECTOR.reshape(2, 2)], {}),
    ("Transpose", [VECTOR.reshape(1, 2, 2)], {"perm": [2, 0, 1]}),
    ("Unsqueeze", [VECTOR, np.array([0, 2], I64)], {}),
    ("Where", [np.array([True, False, True, False]), VECTOR, -VECTOR], {}),
]


@pytest.mark.parametrize(("operator", "inputs", "attributes"), CASES)
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_every_operator_as_onnxruntime_has_it(
    operator: str, inputs: list[Any], attributes: dict[str, Any], domain: str
) -> None:
    names = [f"i{count}" for count in range(len(inputs))]
    node = helper.make_node(operator, names, ["o"], **attributes)
    feeds = dict(zip(names, inputs, strict=True))
    weights = [numpy_helper.from_array(each, name) for name, each in feeds.items()]
    whole = models.model([node], [], [helper.make_empty_tensor_value_info("o")], weights)
    (expected,) = models.run(whole.SerializeToString())
    node.domain = domain
    found = compute(node, feeds, [helper.make_opsetid(domain, 17)])
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_every_operator_is_compared() -> None:
    assert {operator for operator, _, _ in CASES} == OPERATORS.keys()


def test_operators_as_the_opset_of_the_model_has_them() -> None:
    for operator, x, axes in (("Unsqueeze", VECTOR, [0]), ("Squeeze", VECTOR.reshape(1, 4), [0])):
        node = helper.make_node(operator, ["x"], ["o"], axes=axes)  # inputs from opset 13 on
        found = evaluate(node, {"x": x}, [helper.make_opsetid("", 11), helper.make_opsetid("ai.onnx.ml", 3)])
        assert found is not None
        assert found["o"].shape == ((1, 4) if operator == "Unsqueeze" else (4,))


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("NonZero", ["x"], ["o"]),
        helper.make_node("Add", ["x", "x"], ["o"], domain="com.example"),
        helper.make_node("Gather", ["x", "far"], ["o"]),
        helper.make_node("Reshape", ["x", "far"], ["o"]),
        helper.make_node("ConstantOfShape", ["huge"], ["o"]),
    ],
)
def test_what_cannot_be_evaluated_is_unknown(node: onnx.NodeProto) -> None:
    feeds = {"x": VECTOR, "far": np.array([99], I64), "huge": np.array([1 << 40], I64)}
    assert compute(node, {name: feeds[name] for name in node.input}, OPSETS) is None


def test_inputs_that_are_left_out() -> None:
    node = helper.make_node("Slice", ["x", "starts", "ends", "", "steps"], ["o"])
    feeds = {"x": VECTOR, "starts": np.array([0], I64), "ends": np.array([4], I64), "steps": np.array([2], I64)}
    assert (evaluate(node, feeds, OPSETS) or {})["o"].tolist() == [7, 3]


def test_a_cycle_ends() -> None:
    nodes = [
        helper.make_node("Add", ["b", "c"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Reshape", ["x", "a"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(np.array([2, 2], I64), "c")])
    model = helper.make_model(graph)
    before = model.SerializeToString()
    fold_shapes(model)
    assert model.SerializeToString() == before


def test_what_a_chain_computes_on_the_way_is_folded_too() -> None:
    """``half`` shapes y by itself, and z as a part of ``both``."""
    nodes = [
        helper.make_node("Div", ["size", "two"], ["half"]),
        helper.make_node("Concat", ["half", "half"], ["both"], axis=0),
        helper.make_node("Reshape", ["x", "both"], ["z"]),
        helper.make_node("Reshape", ["x", "half"], ["y"]),
    ]
    x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xyz")
    weights = [numpy_helper.from_array(np.array([count], I64), name) for name, count in (("size", 8), ("two", 2))]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y, z], weights))
    fold_shapes(model)
    values = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer}
    assert values == {"size": [8], "two": [2], "half": [4], "both": [4, 4]}
    assert [list(node.output) for node in model.graph.node[:2]] == [["half (folded)"], ["both (folded)"]]
