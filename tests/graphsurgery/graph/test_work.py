"""Multiply-accumulates and the largest activation of models of a node or two, counted by hand."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.shapes import ShapeTable
from graphsurgery.graph.work import Activation, Totals, Work
from graphsurgery.modelfile.model import ModelFile

ONNXRUNTIME = "com.microsoft"
FUSED = {"domain": ONNXRUNTIME}


def model_of(*nodes: onnx.NodeProto, functions: Any = (), **inputs: tuple[int | str, ...]) -> onnx.ModelProto:
    """A model whose inputs in capitals are activations, and all others weights."""
    free = {name: shape for name, shape in inputs.items() if name.isupper()}
    tensors = [
        helper.make_tensor(name, 1, shape, np.zeros(prod(map(int, shape))))
        for name, shape in inputs.items()
        if name not in free
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in free.items()]
    graph = helper.make_graph(nodes, "g", values, [onnx.ValueInfoProto(name="y")], tensors)
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", 19), (ONNXRUNTIME, 1), ("own", 1))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)


def node(operator: str, *inputs: str, y: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [y], **attributes)


def work(*nodes: onnx.NodeProto, **inputs: Any) -> Work:
    return Work.of(ModelFile.load(model_of(*nodes, **inputs)))


MAP: tuple[int, ...] = (1, 4, 7, 7)
COUNTS = {
    # 4 x 5 x 5 values of 3 x 3 taps on 2 channels of a group
    "grouped": (model_of(node("Conv", "X", "w", group=2), X=MAP, w=(4, 2, 3, 3)), 4 * 25 * 18),
    "biased": (model_of(node("Conv", "X", "w", "b"), X=MAP, w=(4, 4, 3, 3), b=(4,)), 4 * 25 * 36),
    "one axis": (model_of(node("Conv", "X", "w"), X=(2, 4, 9), w=(3, 4, 3)), 2 * 3 * 7 * 12),
    "transposed": (model_of(node("ConvTranspose", "X", "w"), X=MAP, w=(4, 3, 2, 2)), 4 * 49 * 12),
    "deformed": (model_of(node("DeformConv", "X", "w", "O"), X=(1, 2, 7, 7), w=(4, 2, 3, 3), O=(1, 18, 5, 5)), 1800),
    "batched": (model_of(node("MatMul", "X", "w"), X=(2, 3, 5, 7), w=(7, 11)), 2 * 3 * 5 * 7 * 11),
    "broadcast": (model_of(node("MatMul", "X", "W"), X=(2, 1, 5, 7), W=(3, 7, 11)), 2 * 3 * 5 * 7 * 11),
    "of a row": (model_of(node("MatMul", "X", "w"), X=(7,), w=(3, 7, 11)), 3 * 7 * 11),
    "by a column": (model_of(node("MatMul", "X", "w"), X=(3, 5, 7), w=(7,)), 3 * 5 * 7),
    "gemm": (model_of(node("Gemm", "X", "w", transB=1), X=(5, 7), w=(11, 7)), 5 * 7 * 11),
    "gemm turned": (model_of(node("Gemm", "X", "w", transA=1), X=(7, 5), w=(7, 11)), 5 * 7 * 11),
    "einsum": (model_of(node("Einsum", "X", "W", equation="bchw, bkc -> bkhw"), X=MAP, W=(1, 9, 4)), 4 * 49 * 9),
    "einsum of one": (model_of(node("Einsum", "X", equation="bchw->bchw"), X=MAP), None),
    "no product": (model_of(node("MaxPool", "X", kernel_shape=[2, 2]), X=MAP), 0),
    "fused": (model_of(node("FusedConv", "X", "w", activation="Relu", **FUSED), X=MAP, w=(4, 4, 3, 3)), 4 * 25 * 36),
    "fused product": (
        model_of(node("FusedMatMul", "X", "w", transB=1, **FUSED), X=(2, 5, 7), w=(11, 7)),
        2 * 5 * 7 * 11,
    ),
    "fused product turned": (
        model_of(node("FusedMatMul", "X", "w", transA=1, **FUSED), X=(7, 5), w=(7, 11)),
        5 * 7 * 11,
    ),
    "fused batches turned": (model_of(node("FusedMatMul", "X", "w", transBatchA=1, **FUSED), X=MAP, w=(7, 3)), None),
    "a namesake": (model_of(node("Conv", "X", "w", domain="com.microsoft.nchwc"), X=MAP, w=(4, 4, 3, 3)), None),
    "a plugin": (model_of(node("ModulatedDeformConv2d", "X", "w", domain="mmcv"), X=MAP, w=(4, 4, 3, 3)), None),
    "another plugin": (model_of(node("EfficientNMS_TRT", "X", domain="TRT"), X=MAP), 0),
    "recurrent": (model_of(node("LSTM", "X", "w", "r", hidden_size=2), X=(3, 1, 4), w=(1, 8, 4), r=(1, 8, 2)), None),
    "dynamic": (model_of(node("MatMul", "X", "w"), X=("N", 7), w=(7, 11)), None),
    "dynamic without a product": (model_of(node("Relu", "X"), X=("N", 7)), 0),
}


@pytest.mark.parametrize("case", COUNTS)
def test_multiply_accumulates(case: str) -> None:
    model, expected = COUNTS[case]
    assert Work.of(ModelFile.load(model)).macs() == expected


def quantised(*nodes: onnx.NodeProto, **integers: tuple[int, ...]) -> Work:
    """The same of 8-bit integers, with a scale ``s`` and a zero point ``z``."""
    model = model_of(*nodes, X=integers.pop("X"))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    values = {name: np.zeros(shape, np.uint8) for name, shape in integers.items()}
    values |= {"s": np.ones((), np.float32), "z": np.zeros((), np.uint8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    return Work.of(ModelFile.load(model))


def test_integers_are_counted_as_what_they_stand_for() -> None:
    convolution = node("QLinearConv", "X", "s", "z", "w", "s", "z", "s", "z")
    assert quantised(convolution, X=MAP, w=(4, 4, 3, 3)).macs() == 4 * 25 * 36
    assert quantised(node("ConvInteger", "X", "w"), X=MAP, w=(4, 4, 3, 3)).macs() == 4 * 25 * 36
    assert quantised(node("MatMulInteger", "X", "w"), X=(2, 5, 7), w=(7, 11)).macs() == 2 * 5 * 7 * 11
    product = node("QLinearMatMul", "X", "s", "z", "w", "s", "z", "s", "z")
    assert quantised(product, X=(2, 5, 7), w=(7, 11)).macs() == 2 * 5 * 7 * 11
    gemm = node("QGemm", "X", "s", "z", "w", "s", "z", "", "s", "z", transB=1, **FUSED)
    assert quantised(gemm, X=(5, 7), w=(11, 7)).macs() == 5 * 7 * 11
    first = node("QGemm", "X", "s", "z", "w", "s", "z", "", "s", "z", y="a", transB=1, **FUSED)
    second = node("QGemm", "a", "s", "z", "v", "s", "z", "", "s", "z", **FUSED)
    assert quantised(first, second, X=(5, 7), w=(11, 7), v=(11, 3)).macs() == 5 * 7 * 11 + 5 * 11 * 3


def test_the_weight_of_a_convolution_may_come_out_of_its_integers() -> None:
    """Nothing states the shape between the two, and nothing has to be inferred for it."""
    nodes = node("DequantizeLinear", "w", "s", y="d"), node("Conv", "X", "d")
    model = model_of(*nodes, X=MAP)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((4, 4, 3, 3), np.int8), "w"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((), np.float32), "s"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 5, 5)))
    index = GraphIndex(ModelFile.load(model))
    shapes = ShapeTable(index)
    assert Work(index, shapes.known).macs() == 4 * 25 * 36
    assert "_everything" not in vars(shapes)


def attention(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], **attributes: int) -> int | None:
    model = model_of(node("Attention", "Q", "K", "V", **attributes), Q=q, K=k, V=v)
    model.opset_import[0].version = 23
    return Work.of(ModelFile.load(model)).macs()


def test_attention_as_one_operator() -> None:
    """Of 4 heads, whose keys have 8 channels and their values 6: 5 queries to 7 keys."""
    assert attention((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)) == 2 * 4 * 5 * 7 * (8 + 6)
    heads = {"q_num_heads": 4, "kv_num_heads": 2}
    assert attention((2, 5, 32), (2, 7, 16), (2, 7, 12), **heads) == 2 * 4 * 5 * 7 * (8 + 6)
    assert attention((2, 5, 32), (2, 7, 32), (2, 7, 24)) is None  # it does not say how many heads there are


# ---------------------------------------------------------------------- graphs


def test_the_nodes_of_a_part() -> None:
    found = work(
        node("Conv", "X", "w", y="a"),
        node("Relu", "a", y="b"),
        node("Conv", "b", "v"),
        X=MAP,
        w=(4, 4, 3, 3),
        v=(8, 4, 1, 1),
    )
    assert found.macs() == 3600 + 8 * 25 * 4
    assert [found.macs([n]) for n in range(3)] == [3600, 0, 800]
    assert found.macs({0, 2}) == found.macs()
    assert found.largest() == Activation((1, 8, 5, 5), 800)
    assert found.largest([0, 1]) == Activation((1, 4, 5, 5), 400)
    assert found.largest([]) is None


def test_the_largest_tensor_is_that_with_the_most_bytes() -> None:
    """A TopK's indices are of 64 bits. What follows from constants alone is no activation."""
    split = helper.make_node("TopK", ["X", "k"], ["values", "indices"])
    model = model_of(
        node("Constant", y="k", value=helper.make_tensor("k", TensorProto.INT64, (1,), [30])),
        split,
        node("Expand", "one", "shape", y="constant"),
        node("Add", "values", "constant"),
        X=(2, 40),
        one=(1,),
    )
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, (2,), [2, 30]))
    assert Work.of(ModelFile.load(model)).largest() == Activation((2, 30), 480)


def test_what_is_not_known_is_not_guessed() -> None:
    nodes = node("Relu", "X", y="a"), node("NonZero", "a", y="b"), node("Transpose", "b")
    found = work(*nodes, X=(3, 4))
    assert found.totals == Totals(0, None)
    assert found.largest([0]) == Activation((3, 4), 48)
    assert str(found.totals) == "0 MACs; largest activation not known"
    assert str(work(node("MatMul", "X", "w"), X=("N", 7), w=(7, 11)).totals).startswith("MACs not known; ")


def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(nodes, "b", [], [onnx.ValueInfoProto(name="inner")])


def test_how_often_a_body_runs_is_not_known() -> None:
    plain = branch(node("Relu", "X", y="inner"))
    product = branch(node("MatMul", "X", "w", y="inner"))
    inputs = {"C": (), "X": (5, 7), "w": (7, 7)}
    for other, expected in ((plain, 0), (product, None)):
        model = model_of(node("If", "C", then_branch=plain, else_branch=other), **inputs)
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.BOOL
        assert Work.of(ModelFile.load(model)).macs() == expected


def test_calls_of_functions_are_written_out() -> None:
    opset = [helper.make_opsetid("", 19)]
    body = helper.make_function("own", "Stage", ["a", "w"], ["b"], [node("Conv", "a", "w", y="b")], opset)
    calls = [node("Stage", "X", "w", y="c", domain="own"), node("Stage", "c", "w", domain="own")]
    model = ModelFile.load(model_of(*calls, functions=[body], X=MAP, w=(4, 4, 3, 3)))
    assert Work.of(model).macs() == 3600 + 4 * 9 * 36
    index = GraphIndex(model)
    assert Work(index, ShapeTable(index).lookup).macs() is None


def test_sizes_that_the_model_leaves_open_can_be_given() -> None:
    model = ModelFile.load(model_of(node("Conv", "X", "w"), X=("N", 4, "H", "W"), w=(4, 4, 3, 3)))
    assert Work.of(model).totals == Totals(None, None)
    assert Work.of(model, {"X": (2, 4, 7, 7)}).totals == Totals(2 * 3600, Activation((2, 4, 5, 5), 800))
