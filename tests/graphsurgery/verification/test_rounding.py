from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphsurgery.runtime.session import session
from graphsurgery.verification.rounding import rounded_after_every_node

KINDS = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}


def _model(nodes: list[Any], kind: int, constants: dict[str, np.ndarray] | None = None, opset: int = 13) -> Any:
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", kind, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", kind, [1, 2, 4, 4])],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    rounded = rounded_after_every_node(model)
    onnx.checker.check_model(rounded)
    (y,) = session(rounded.SerializeToString(), optimise=False).run({"x": x.astype(np.float32)})
    assert y.dtype == np.float32
    return y


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_is_rounded(kind: int) -> None:
    half = KINDS[kind]
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(half)
    third = np.full((1, 1, 1, 1), 1 / 3).astype(half)
    nodes = [
        helper.make_node("Mul", ["x", "third"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["b"]),
        helper.make_node("Mul", ["b", "b"], ["y"]),
    ]
    a = (x.astype(np.float32) * third.astype(np.float32)).astype(half).astype(np.float32)
    b = (a + x.astype(np.float32)).astype(half).astype(np.float32)
    expected = (b * b).astype(half)
    found = _run(_model(nodes, kind, {"third": third}), x)
    assert np.array_equal(found.astype(half), expected)
    in_one_go = x.astype(np.float32) * (1 + third.astype(np.float32))
    assert not np.array_equal((in_one_go**2).astype(half), expected)


def test_an_overflow_in_the_middle_shows_although_onnxruntime_hides_it() -> None:
    nodes = [helper.make_node("Mul", ["x", "x"], ["square"]), helper.make_node("Sqrt", ["square"], ["y"])]
    model = _model(nodes, TensorProto.FLOAT16)
    x = np.full((1, 2, 4, 4), 300, np.float16)
    with np.errstate(over="ignore"):
        assert np.isinf(_run(model, x).astype(np.float16)).all()
    (hidden,) = session(model.SerializeToString(), optimise=False).run({"x": x})
    if not np.isinf(hidden).all():  # a machine with float16 kernels shows it by itself
        np.testing.assert_allclose(hidden, 300, rtol=1e-3)


def test_islands_of_float32_stay_what_they_are() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "wide"], ["square"]),
        helper.make_node("Sqrt", ["square"], ["root"]),
        helper.make_node("Cast", ["root"], ["y"], to=TensorProto.FLOAT16),
    ]
    found = _run(_model(nodes, TensorProto.FLOAT16), np.full((1, 2, 4, 4), 300, np.float16))
    assert (found == 300).all()


def test_integers_are_left_alone_and_constants_are_lifted() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float16), "one")
        ),
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.full(1, 2, np.float16), "two")),
        helper.make_node("Add", ["x", "ones"], ["sum"]),
        helper.make_node("Mul", ["sum", "two"], ["y"]),
    ]
    found = _run(_model(nodes, TensorProto.FLOAT16), np.zeros((1, 2, 4, 4), np.float16))
    assert (found == 2).all()


def test_what_it_is_given_is_not_changed() -> None:
    model = _model([helper.make_node("Sigmoid", ["x"], ["y"])], TensorProto.FLOAT16)
    before = model.SerializeToString()
    rounded_after_every_node(model)
    assert model.SerializeToString() == before
