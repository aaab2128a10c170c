"""Chains of constants that shapes depend on, with ONNX's own reference evaluator as the judge of every operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphsurgery.graph.shape_constants import _OPERATORS, _run, fold_shapes

I64 = np.int64
VECTOR = np.array([7, -2, 3, 0], I64)

CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Add", [VECTOR, np.array([1], I64)], {}),
    ("Cast", [np.array([1.7, -2.2], np.float32)], {"to": TensorProto.INT64}),
    ("Cast", [VECTOR], {"to": TensorProto.FLOAT16}),
    ("Concat", [VECTOR, VECTOR], {"axis": 0}),
    ("Concat", [VECTOR.reshape(2, 2), VECTOR.reshape(2, 2)], {"axis": -1}),
    ("ConstantOfShape", [np.array([2, 3], I64)], {}),
    ("ConstantOfShape", [np.array([4], I64)], {"value": numpy_helper.from_array(np.array([5], I64))}),
    ("Div", [VECTOR, np.array([2], I64)], {}),
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
def test_every_operator_as_the_reference_has_it(operator: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    names = [f"i{count}" for count in range(len(inputs))]
    node = helper.make_node(operator, names, ["o"], **attributes)
    feeds = dict(zip(names, inputs, strict=True))
    (expected,) = ReferenceEvaluator(node).run(None, feeds)
    found = _run(node, feeds)["o"]
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_every_operator_is_judged() -> None:
    assert {operator for operator, _, _ in CASES} == set(_OPERATORS)


def test_axes_as_attributes_before_opset_13() -> None:
    for operator, x, axes in (("Unsqueeze", VECTOR, [0]), ("Squeeze", VECTOR.reshape(1, 4), [0])):
        found = _run(helper.make_node(operator, ["x"], ["o"], axes=axes), {"x": x})["o"]
        assert found is not None
        assert found.shape == ((1, 4) if operator == "Unsqueeze" else (4,))


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
    assert _run(node, feeds) == {"o": None}


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
