"""For the rules that the importer's source and NVIDIA's parser taught: models that break them and that comply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.graphsurgery.tensorrt.cases import Case, Proto, pool, quantised, resize
from tests.graphsurgery.tensorrt.models import (
    BF16,
    BOOL,
    DOUBLE,
    FLOAT,
    HALF,
    INT32,
    INT64,
    floats,
    function,
    given,
    ints,
    of_shape,
    single,
)
from tests.models import chain, model, node, value

INT8, UINT8, INT16 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16


def of(op_type: str, kind: int, **more: Any) -> Proto:
    """One input and one output of an element type."""
    return single(op_type, given(kind), gives=kind, **more)


def both(op_type: str, kind: int, gives: int) -> Proto:
    return single(op_type, given(kind), given(kind), gives=gives)


def nonzero(kind: int) -> Proto:
    return single("NonZero", given(kind), gives=INT64)


def counted(dtype: Any, kind: int) -> Proto:
    """A Range of constants."""
    return single("Range", *(np.array(n, dtype) for n in (0, 4, 1)), gives=kind)


def summed(kind: int) -> Proto:
    return single("CumSum", given(kind), np.array(1, np.int32), gives=kind)


def bias(dtype: Any) -> Proto:
    """x plus a constant that is stored quantised, as a bias is."""
    proto = single("Add", given(FLOAT, 1, 4), given(FLOAT, 4))
    stored, scale = np.array([1, 2, 3, 4], dtype), np.array(0.1, np.float32)
    pair = single("DequantizeLinear", stored, scale).graph
    pair.node[0].name, pair.node[0].output[0] = "/a/bias", "x1"
    pair.node[0].input[:] = ["stored", "scale"]
    for tensor, name in zip(pair.initializer, ("stored", "scale"), strict=True):
        tensor.name = name
    del proto.graph.input[1:]
    proto.graph.initializer.extend(pair.initializer)
    proto.graph.node.insert(0, pair.node[0])
    return proto


def four_bits(size: int) -> Proto:
    """A DequantizeLinear of numbers of 4 bits."""
    return single("DequantizeLinear", given(TensorProto.INT4, size), np.array(0.1, np.float32), opset=21)


def zero_point(dtype: Any) -> Proto:
    """A QuantizeLinear whose zero point is in a Constant node."""
    proto = quantised(0, dtype)
    zero = proto.graph.initializer.pop()
    proto.graph.node.insert(0, node("Constant", [], [zero.name], "/a/zero", value=zero))
    return proto


def sized(op_type: str, *inputs: str, from_data: bool, **more: Any) -> Proto:
    """A node whose size comes from the largest value of its input, or from a vector of integers that is given."""
    nodes = [
        node("ReduceMax", ["x"], ["m"], "/a/Max", axes=[0, 2, 3], keepdims=0),
        node("Cast", ["m"], ["k"], "/a/C", to=INT64),
    ]
    made = node(op_type, inputs, ["y"], "/a/Op", **more)
    given_inputs = [value("x", (1, 4, 8, 8)), *([] if from_data else [value("k", (4,), INT64)])]
    return model([*(nodes if from_data else ()), made], given_inputs, [value("y", None)])


def measured_scales(*, from_data: bool) -> Proto:
    """A Resize by the largest values of its input, or by what comes of the shape of its input."""
    first = node("ReduceMax", ["x"], ["f"], "/a/Max", axes=[0, 2, 3], keepdims=0)
    shapes = [node("Shape", ["x"], ["s"], "/a/Shape"), node("Cast", ["s"], ["f"], "/a/Cast", to=FLOAT)]
    scales = node("Div", ["f", "f"], ["scales"], "/a/Div")
    made = node("Resize", ["x", "", "scales"], ["y"], "/a/Op", mode="nearest")
    return model([*([first] if from_data else shapes), scales, made], [value("x")], [value("y", None)])


def parts(size: int) -> Proto:
    """A Split into five."""
    return single("Split", given(FLOAT, 1, size), outputs=5, opset=18, axis=1, num_outputs=5)


def heads(width: int) -> Proto:
    """Attention with values of one width for a head and keys of four."""
    queries, keys = (given(FLOAT, 1, 2, 8, 4),) * 2
    return single("Attention", queries, keys, given(FLOAT, 1, 2, 8, width), opset=23)


def masked(*, causal: int) -> Proto:
    return single("Attention", *(given(FLOAT, 1, 2, 8, 4),) * 3, given(FLOAT, 8, 8), opset=23, is_causal=causal)


def scattered(mode: str) -> Proto:
    return single("ScatterElements", given(FLOAT, 4), ints(0), floats(1.0), opset=18, reduction=mode)


def _operators() -> Iterator[Case]:
    yield Case(
        "plugin", single("EfficientNMS_TRT", given()), chain("Relu")
    )  # in the domain that onnx-graphsurgeon writes
    yield Case("plugin", single("BatchedNMSDynamic_TRT", given()), chain("Relu"))
    yield Case("custom-operator", single("Magic", given()), single("EfficientNMS_TRT", given()))
    yield Case(
        "custom-operator", single("Mish_TRT", given(), domain="TRT"), single("Region_TRT", given(), domain="TRT")
    )
    fp8 = single("TRT_FP8QuantizeLinear", given(), floats(0.1), domain="trt")
    yield Case("custom-operator", single("TRT_Magic", given(), domain="trt"), fp8)
    batched = single("BatchedNMS_TRT", given())
    yield Case("plugin-version", batched, batched, "11", complies_in="10")
    yield Case("plugin-of-yours", single("Magic", given()), chain("Relu"), plugin="Magic")
    yield Case("plugin-of-yours", chain("Det"), chain("Det"), plugin=("Magic", "Det"))
    named = function()
    named.functions[0].name = named.graph.node[1].op_type = "Relu"
    yield Case("read-as-operator", named, function())
    yield Case("read-as-operator", single("Relu", given(), domain="lab"), chain("Relu"))
    gelu = single("Gelu", given(), domain="com.microsoft")
    yield Case("operator", gelu, gelu, "8.6", complies_in="10")
    unsigned = TensorProto.UINT16
    yield Case("tensor-types", of("Identity", unsigned), of("Identity", INT32))
    yield Case("tensor-types", of("Identity", BF16), of("Identity", BF16), "8.6", complies_in="10")
    short = single("Add", given(), np.ones(8, np.int16))
    yield Case("tensor-types", short, single("Add", given(), np.ones(8, np.float64)))


def _types() -> Iterator[Case]:
    for kind in (BOOL, INT32, INT64, INT8):
        for version in ("8.6", "10", "11"):
            yield Case("type", nonzero(UINT8), nonzero(kind), version)
    yield Case("type", summed(UINT8), summed(INT64))
    yield Case("type", both("Less", BOOL, BOOL), both("Equal", BOOL, BOOL))
    yield Case("type", counted(np.float16, HALF), counted(np.float32, FLOAT), "11")
    yield Case("type", of("Shrink", BF16), of("Shrink", INT8))
    yield Case("type", of("Shrink", BF16), of("Shrink", BF16), complies_in="11")
    yield Case("type", of("Relu", INT32), of("Relu", INT64))
    yield Case("type", single("IsNaN", given(INT32), gives=BOOL), single("IsNaN", given(HALF), gives=BOOL), "8.6")
    yield Case("type", both("Add", INT8, INT8), both("Add", INT8, INT8), "10", complies_in="11")
    yield Case("type", of("LpPool", BF16, kernel_shape=[2, 2]), of("LpPool", HALF, kernel_shape=[2, 2]), "11")
    for version in ("8.6", "10", "11"):
        yield Case("type", of_shape("Sqrt"), of_shape("Neg"), version)  # importers ask shapes for their type as well
    for version in ("8.6", "10", "11"):
        yield Case("type", zero_point(np.int16), zero_point(np.int8), version)  # as exporters of QAT models write it
    constant = single("Add", given(), floats(1.0))
    constant.graph.node.insert(0, node("Sqrt", ["c"], ["x1"], "/a/Sqrt"))
    constant.graph.initializer[0].name = "c"
    whole = type(constant)()
    whole.CopyFrom(constant)
    whole.graph.initializer[0].CopyFrom(single("Add", given(), np.array([1], np.int32)).graph.initializer[0])
    whole.graph.initializer[0].name = "c"
    yield Case("type", whole, constant, "11")


def _attributes() -> Iterator[Case]:
    yield Case("lp-norm", pool([2, 2], "LpPool", p=3), pool([2, 2], "LpPool", p=1))
    yield Case("lp-norm", single("LpNormalization", given(), p=3), single("LpNormalization", given()), "8.6")
    weights = (floats(1, 1, 1, 1),) * 4

    def normal(**more: Any) -> Proto:
        return single("BatchNormalization", given(), *weights, opset=15, **more)

    yield Case("batchnorm-training", normal(training_mode=1), normal(training_mode=0))
    yield Case("mod-floats", both("Mod", FLOAT, FLOAT), both("Mod", INT32, INT32))
    yield Case("mod-floats", both("Mod", HALF, HALF), single("Mod", given(), given(), fmod=1), "8.6")
    random = single("RandomUniform", shape=None, dtype=FLOAT)
    random.graph.node[0].attribute.extend(node("RandomUniform", [], ["r"], "r", shape=[4]).attribute)
    wide = type(random)()
    wide.CopyFrom(random)
    wide.graph.node[0].attribute[0].i = DOUBLE
    yield Case("random-type", wide, random)
    yield Case("split-parts", parts(6), parts(10))
    yield Case("scatterelements-ignored", scattered("add"), scattered("none"), "8.6")
    yield Case("scatterelements-reduction", scattered("add"), scattered("add"), "11", complies_in="10")
    rows = given(FLOAT, 1, 2, 8, 4)

    def put(mode: str) -> Proto:
        return single("TensorScatter", rows, rows, opset=24, mode=mode)

    yield Case("tensorscatter-mode", put("circular"), put("linear"), "11")
    tensors = [np.ones((1, 8, 4), np.float32), np.ones((1, 8, 2), np.float32)]

    def lstm(layout: int) -> Proto:
        return single("LSTM", given(FLOAT, 3, 1, 4), *tensors, hidden_size=2, layout=layout)

    yield Case("lstm-layout", lstm(1), lstm(0))
    yield Case("lstm-layout", lstm(1), lstm(1), complies_in="11")
    yield Case("attention-mask", masked(causal=1), masked(causal=0), "11")
    yield Case("attention-heads", heads(8), heads(4), "11")


def _quantised() -> Iterator[Case]:
    for version in ("8.6", "10", "11"):
        yield Case("quantised-bias", bias(np.int32), bias(np.int8), version)
    yield Case("quantise-type", quantised(0, np.uint8), quantised(0, np.int8))
    yield Case("quantise-type", quantised(0, np.int16), quantised(0, np.int8), "11")

    for size in (3, 5):
        yield Case("quantise-even", four_bits(size), four_bits(size + 1), "11")


def _sizes() -> Iterator[Case]:
    for op_type, inputs in (("Reshape", "xk"), ("Expand", "xk"), ("Tile", "xk"), ("ConstantOfShape", "k")):
        yield Case(
            "shape-on-device", sized(op_type, *inputs, from_data=True), sized(op_type, *inputs, from_data=False), "11"
        )
    data = sized("Resize", "x", "", "", "k", from_data=True)
    yield Case("shape-on-device", data, data, "11", complies_in="10")
    yield Case("shape-from-data", data, resize())
    for version in ("8.6", "10", "11"):
        yield Case("resize-scales", measured_scales(from_data=True), measured_scales(from_data=False), version)
    grid = given(FLOAT, 1, 4, 8, 8, 8), given(FLOAT, 1, 8, 8, 8, 3)
    volume = single("GridSample", *grid, opset=20)
    flat = given(HALF, 1, 4, 8, 8)
    mixed = single("GridSample", flat, given(FLOAT, 1, 8, 8, 2), gives=HALF)
    yield Case("gridsample-types", mixed, single("GridSample", flat, given(HALF, 1, 8, 8, 2), gives=HALF), "11")
    yield Case("gridsample-rank", volume, volume, complies_in="11")


IMPORTER_CASES = (*_operators(), *_types(), *_attributes(), *_quantised(), *_sizes())
