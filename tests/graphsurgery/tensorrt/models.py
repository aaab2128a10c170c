"""Models of one node, to break a rule with and to comply with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models import model, node, value

FLOAT, HALF, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
DOUBLE, INT32, INT64, BOOL = TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL
MAP = (1, 4, 8, 8)


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def floats(*values: float, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.array(values, dtype)


def given(kind: int = FLOAT, *shape: int | str) -> tuple[int, tuple[int | str, ...]]:
    """An input of the model."""
    return kind, shape or MAP


def single(
    op_type: str,
    *inputs: np.ndarray[Any, Any] | tuple[int, tuple[int | str, ...]] | None,
    outputs: int = 1,
    gives: int = FLOAT,
    shape: Sequence[int | str | None] | None = None,
    opset: int = 17,
    domain: str = "",
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node, called /a/Op; an array among the inputs is an initializer, None is left out."""
    names, graph_inputs, initializers = [], [], []
    for i, each in enumerate(inputs):
        name = f"x{i}" if each is not None else ""
        names.append(name)
        if isinstance(each, np.ndarray):
            initializers.append(numpy_helper.from_array(each, name))
        elif each is not None:
            graph_inputs.append(value(name, each[1], each[0]))
    made = node(op_type, names, [f"y{i}" for i in range(outputs)], "/a/Op", domain=domain, **attributes)
    results = [helper.make_tensor_value_info("y0", gives, shape)]
    results += [helper.make_tensor_value_info(f"y{i}", INT64, None) for i in range(1, outputs)]
    proto = model([made], graph_inputs, results, initializers, opset=opset)
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def of_shape(op_type: str, **attributes: Any) -> onnx.ModelProto:
    """x -> Shape -> ``op_type`` -> y: a node that computes with shapes alone."""
    nodes = [node("Shape", ["x"], ["s"], "/a/Shape"), node(op_type, ["s"], ["y"], "/a/Op", **attributes)]
    return model(nodes, [value("x", ("N", 4, 8, 8))], [value("y", None, INT64)])


def function(
    *,
    inputs: Sequence[str] = ("a", "b"),
    passed: Sequence[str] = ("x", "x"),
    opset: int = 17,
    domains: Sequence[str] = ("local",),
    inner: str = "inside",
    body: str = "Relu",
) -> onnx.ModelProto:
    """A model that calls the function Gate; ``domains`` has one function of that name each."""
    called = node("Gate", passed, ["t"], "/a/Gate", domain=domains[0])
    proto = model(
        [node("Relu", ["x"], ["outside"], "/a/R"), called, node("Add", ["t", "outside"], ["y"], "/a/Add")],
        [value("x")],
        [value("y")],
    )
    for domain in domains:
        steps = [node(body, [inputs[0]], [inner]), node("Relu", [inner], ["r"])]
        proto.functions.append(
            helper.make_function(domain, "Gate", inputs, ["r"], steps, [helper.make_opsetid("", opset)])
        )
        if domain:
            proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def branches(names: tuple[str, str] = ("p", "q"), ranks: tuple[int, int] = (4, 4)) -> onnx.ModelProto:
    """An If whose branches give outputs of these names and ranks."""
    graphs = []
    for name, rank in zip(names, ranks, strict=True):
        reshape = node("Reshape", ["x", f"{name}_shape"], [name], f"/a/{name}/Reshape")
        shape = numpy_helper.from_array(ints(*([1] * (rank - 1)), -1), f"{name}_shape")
        graphs.append(helper.make_graph([reshape], name, [], [value(name, [None] * rank)], [shape]))
    made = node("If", ["c"], ["y"], "/a/Op", then_branch=graphs[0], else_branch=graphs[1])
    return model([made], [value("c", [], BOOL), value("x")], [value("y", None)])


def loop(turns: np.ndarray[Any, Any] | None) -> onnx.ModelProto:
    """A Loop that collects an output, of a constant number of turns or of one that is computed."""
    body = helper.make_graph(
        [node("Identity", ["cond"], ["cond_out"]), node("Relu", ["x"], ["collected"])],
        "body",
        [value("i", [], INT64), value("cond", [], BOOL)],
        [value("cond_out", [], BOOL), value("collected", MAP)],
    )
    initializers = [numpy_helper.from_array(turns, "m")] if turns is not None else []
    initializers.append(numpy_helper.from_array(np.array(True), "c"))
    inputs = [value("x"), *([] if turns is not None else [value("m", [], INT64)])]
    return model([node("Loop", ["m", "c"], ["y"], "/a/Op", body=body)], inputs, [value("y", None)], initializers)


def squares_summed(kind: int = HALF) -> onnx.ModelProto:
    """ReduceSum of x * x."""
    nodes = [node("Mul", ["x", "x"], ["s"], "/a/Mul"), node("ReduceSum", ["s", "axes"], ["y"], "/a/Op")]
    axes = numpy_helper.from_array(ints(2, 3), "axes")
    return model(nodes, [value("x", MAP, kind)], [value("y", (1, 4, 1, 1), kind)], [axes])
