"""For every rule: models that break it and models that only just comply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.graphsurgery.tensorrt.models import (
    BF16,
    DOUBLE,
    FLOAT,
    HALF,
    INT32,
    INT64,
    branches,
    floats,
    function,
    given,
    ints,
    loop,
    of_shape,
    single,
    squares_summed,
)
from tests.models import chain, model, node, value

Proto: TypeAlias = onnx.ModelProto


@dataclass(frozen=True)
class Case:
    """``rule`` is broken by the one model, not by the other."""

    rule: str
    breaks: Proto
    complies: Proto
    version: str = "10"
    dla: str | None = None
    precision: str = "fp32"
    complies_in: str | None = None
    """version that the second model is checked for, if it is another"""
    plugin: str | tuple[str, ...] = ()
    """plugins that the first model is checked with"""


def with_ir(proto: onnx.ModelProto, version: int) -> Proto:
    proto.ir_version = version
    return proto


def resize(mode: str = "nearest", scales: tuple[float, ...] = (1, 1, 2, 2), opset: int = 17, **more: Any) -> Proto:
    settings = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": mode, **more}
    return single("Resize", given(), None, floats(*scales), opset=opset, **settings)


def computed_resize(axes: list[int]) -> Proto:
    """Scales that the model is given, for these axes alone."""
    return single("Resize", given(), None, given(FLOAT, len(axes)), opset=18, axes=axes, mode="linear")


def quantised(zero: int, dtype: Any = np.int8, scale: Any = 0.1) -> Proto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    scales = np.array(scale, np.float32)
    return single("QuantizeLinear", given(), scales, np.full(scales.shape, zero, dtype), gives=kind)


def instance_norm(rank: int, dtype: Any = np.float32) -> Proto:
    shape = (1, 4, 8, 8, 2, 2)[:rank]
    return single("InstanceNormalization", given(FLOAT, *shape), *(np.ones(4, dtype),) * 2)


def conv(kernel: int = 3, **attributes: Any) -> Proto:
    weights = np.ones((4, 4, kernel, kernel), np.float32)
    return single("Conv", given(FLOAT, 1, 4, 64, 64), weights, kernel_shape=[kernel] * 2, **attributes)


def one_axis_conv() -> Proto:
    return single("Conv", given(FLOAT, 1, 4, 8), np.ones((4, 4, 3), np.float32), kernel_shape=[3])


def pool(window: list[int], op_type: str = "AveragePool", rank: int = 4, **more: Any) -> Proto:
    shape = (1, 4, 64, 64, 64, 64)[:rank]
    return single(op_type, given(FLOAT, *shape), kernel_shape=window, **more)


def plus(constant: float, kind: int = HALF) -> Proto:
    dtype = np.float16 if kind == HALF else np.float32
    return single("Add", given(kind), floats(constant, dtype=dtype), gives=kind)


def sized_by(source: str) -> Proto:
    """A Reshape to sizes that come from an input of the model, or from the shape of one."""
    nodes = [node("Shape", ["x"], ["s"], "/a/Shape"), node("Reshape", ["x", source], ["y"], "/a/Op")]
    return model(nodes, [value("x"), value("n", (4,), INT64)], [value("y", None)])


def whole(kind: int) -> Proto:
    """A Constant of one kind of attribute."""
    if kind == TensorProto.STRING:
        return model([node("Constant", [], ["y"], "/a/Op", value_string="no")], [], [value("y", [], kind)])
    return model([node("Constant", [], ["y"], "/a/Op", value_float=1.0)], [], [value("y", [])])


def attention(**more: Any) -> Proto:
    parts = (given(FLOAT, 1, 2, 8, 4),) * 3
    return single("Attention", *parts, opset=23, **more)


def _standard() -> Iterator[Case]:
    yield Case("opset-range", chain("Relu", opset=18), chain("Relu", opset=17), "8.6")
    yield Case("opset-range", chain("Relu", opset=8), chain("Relu", opset=9), "10")
    yield Case("opset-range", chain("Relu", opset=21), chain("Relu", opset=20), "10")
    yield Case("ir-version", with_ir(chain("Relu"), 9), with_ir(chain("Relu"), 8), "8.6")
    yield Case("dynamic-input", chain("Relu", shape=("N", 4, 8, 8)), chain("Relu"))
    float16 = single("Relu", given(HALF), gives=HALF)
    yield Case("float16-in-file", chain("Relu"), float16, "11", precision="fp16")
    yield Case("int8-in-file", chain("Relu"), quantised(0), "11", precision="int8")
    yield Case("int8-calibration", chain("Relu"), quantised(0), "10", precision="int8")
    yield Case("operator", chain("Gelu", opset=20), chain("Gelu", opset=20), "8.6", complies_in="10")
    yield Case("operator", chain("Det"), chain("Sqrt"), "11")
    yield Case("operator", attention(), attention(), "10.13", complies_in="10.14")
    yield Case("custom-operator", single("Magic", given(), domain="lab"), chain("Relu"))
    nms = single("EfficientNMS_TRT", given(), domain="TRT")
    yield Case("plugin", nms, chain("Relu"))
    yield Case("custom-operator", single("Magic", given(), domain="TRT"), nms)
    for version in ("8.6", "10"):
        yield Case("type", single("Sqrt", given(INT32), gives=INT32), chain("Sqrt"), version)
    bfloat16 = single("Mul", given(BF16), given(BF16), gives=BF16)
    yield Case("type", bfloat16, bfloat16, "8.6", complies_in="10")

    def hard(kind: Any) -> Proto:
        return single("HardSwish", given(kind), gives=kind)

    yield Case("type", hard(BF16), hard(HALF), "10")
    unsigned = single("Mul", *(given(TensorProto.UINT8),) * 2, gives=TensorProto.UINT8)
    yield Case("type", unsigned, single("Mul", given(INT64), given(INT64), gives=INT64), "8.6")
    yield Case(
        "type",
        single("Neg", given(TensorProto.INT16), gives=TensorProto.INT16),
        of_shape("Neg"),
        "11",
    )
    yield Case("float64", single("Relu", given(DOUBLE), gives=DOUBLE), chain("Relu"))

    def large(n: Any) -> Proto:
        return single("Add", given(INT64), ints(n), gives=INT64)

    yield Case("int64-range", large(2**31), large(2**31 - 1), "8.6")
    yield Case("int64-range", large(-(2**31) - 1), large(2**31), "8.6", complies_in="10")
    sliced = single("Slice", given(), ints(0), ints(2**62), ints(2))
    yield Case("int64-range", large(2**62), sliced, "8.6")


def _functions() -> Iterator[Case]:
    yield Case("local-function", function(), function(), "8.6", complies_in="10")
    yield Case("function-inputs", function(passed=("x",)), function())
    yield Case("function-inputs", function(passed=("x", "")), function())
    yield Case("function-names", function(domains=("local", "other")), function())
    yield Case("function-opset", function(opset=16), function())
    yield Case("function-shadowing", function(inner="outside"), function())
    yield Case(
        "function-shadowing",
        function(inner="outside"),
        function(inner="outside"),
        "10.7",
        complies_in="10.8",
    )
    yield Case("operator", function(body="Det"), function())
    yield Case("operator", function(body="Det"), function(domains=("",)))  # in the standard set's own domain


def _attributes() -> Iterator[Case]:
    yield Case("pool-window", pool([2, 2, 2, 2], rank=6), pool([2, 2, 2], rank=5))
    yield Case("pool-dilations", pool([2, 2], "MaxPool", dilations=[1, 2]), pool([2, 2], "MaxPool", dilations=[1, 1]))
    two = single("MaxPool", given(), outputs=2, kernel_shape=[2, 2])
    yield Case("maxpool-indices", two, pool([2, 2], "MaxPool"))
    ones = np.ones(8, np.float32)

    def norm(n: Any, *more: Any) -> Proto:
        return single("LayerNormalization", given(), ones, *more, outputs=n)

    yield Case("layernorm-outputs", norm(2, ones), norm(1, ones))
    yield Case("layernorm-bias", norm(1), norm(1, ones))

    def half(kind: int) -> Proto:
        return single("LayerNormalization", given(kind, 2, 4), *(np.ones(4, np.float16),) * 2, gives=kind)

    yield Case("layernorm-types", half(FLOAT), half(TensorProto.FLOAT16), "11")

    def group(n: Any) -> Proto:
        return single("GroupNormalization", given(), *(floats(*[1] * 4),) * 2, opset=n, num_groups=2)

    yield Case("groupnorm-opset", group(21), group(20))
    yield Case("groupnorm-opset", group(21), group(21), "10.8", complies_in="10.9")

    def top(k: Any = 2, **more: Any) -> Proto:
        return single("TopK", given(FLOAT, 1, 9000), ints(k), outputs=2, **more)

    yield Case("topk-sorted", top(sorted=0), top(sorted=1))
    yield Case("topk-k", top(3840), top(3839))
    yield Case(
        "resize-coordinates",
        resize(coordinate_transformation_mode="tf_crop_and_resize"),
        resize(coordinate_transformation_mode="align_corners"),
    )
    yield Case("resize-antialias", resize("linear", opset=18, antialias=1), resize("linear", opset=18, antialias=0))
    yield Case(
        "resize-aspect",
        resize(opset=18, keep_aspect_ratio_policy="not_larger"),
        resize(opset=18, keep_aspect_ratio_policy="stretch"),
    )
    yield Case("resize-axes", computed_resize([2, 3]), computed_resize([0, 1, 2, 3]))
    some = resize(scales=(2, 2), opset=18, axes=[2, 3])
    yield Case("resize-axes", some, some, "8.6", complies_in="10")
    yield Case("resize-count", resize("linear", (2, 2, 2, 2)), resize("linear", (1, 2, 2, 2)))
    yield Case("resize-count", resize("cubic", (1, 2, 2, 2)), resize("cubic", (1, 1, 2, 2)))
    yield Case("attention-form", attention(softcap=1.0), attention(), "11")

    def scatter(mode: Any) -> Proto:
        return single("ScatterND", given(FLOAT, 4), ints(0).reshape(1, 1), floats(1.0), opset=18, reduction=mode)

    yield Case("scatternd-reduction", scatter("add"), scatter("none"))
    names = ["Sigmoid", "Tanh", "Tanh"]
    weights = [np.ones((2, 8, 4), np.float32), np.ones((2, 8, 2), np.float32)]

    def lstm(acts: Any, **more: Any) -> Proto:
        return single(
            "LSTM", given(FLOAT, 3, 1, 4), *weights, hidden_size=2, direction="bidirectional", activations=acts, **more
        )

    yield Case("rnn-activations", lstm([*names, "Sigmoid", "Relu", "Tanh"]), lstm(names * 2))
    yield Case("lstm-form", lstm(names * 2, input_forget=1), lstm(names * 2, input_forget=0))
    yield Case("constant-form", whole(TensorProto.STRING), whole(FLOAT))

    def drop(on: Any) -> Proto:
        return single("Dropout", given(), None, np.array(on))

    yield Case("dropout-training", drop(True), drop(False))

    def deform(pads: Any, *shape: Any) -> Proto:
        return single(
            "DeformConv",
            given(FLOAT, *shape),
            np.ones((4, 4, 3, 3), np.float32),
            given(FLOAT, 1, 18, 8, 8),
            opset=19,
            pads=pads,
        )

    yield Case("deformconv-pads", deform([1, 1, 0, 0], 1, 4, 8, 8), deform([1, 1, 1, 1], 1, 4, 8, 8), "10.1")
    yield Case("deformconv-rank", deform([1, 1, 1, 1], 1, 4, 8, 8, 8), deform([1, 1, 1, 1], 1, 4, 8, 8), "10.1")

    def ein(text: Any, *shapes: Any) -> Proto:
        return single("Einsum", *(given(FLOAT, *s) for s in shapes), equation=text)

    plain = ein("ij,jk->ik", (2, 3), (3, 4))
    for version in ("8.6", "10.11"):
        yield Case("einsum-form", ein("...j,jk->...k", (2, 3), (3, 4)), plain, version)
    yield Case("einsum-form", ein("ii->i", (3, 3)), plain)
    yield Case("einsum-form", ein("ij,ij->ij", (1, 3), (2, 3)), ein("ij,ij->ij", (2, 3), (2, 3)))
    yield Case("einsum-form", ein("ii->i", (3, 3)), ein("ii->i", (3, 3)), "10.11", complies_in="10.12")

    def power(x: Any) -> Proto:
        return single("Pow", given(), x)

    yield Case("pow-exponent", power(ints(2)), power(floats(2.0)))
    yield Case("pow-exponent", power(ints(2)), power(ints(2)), "10.7", complies_in="10.8")
    yield Case("instancenorm-types", instance_norm(4, np.float16), instance_norm(4))
    yield Case("instancenorm-types", instance_norm(6), instance_norm(5), "8.6")
    yield Case("instancenorm-types", instance_norm(2), instance_norm(6), "10")
    yield Case("instancenorm-plugin", instance_norm(4), instance_norm(4), "8.6", complies_in="10")
    yield Case("quantise-zero-point", quantised(1), quantised(0))
    yield Case("quantise-zero-point", quantised(128, np.uint8), quantised(0, np.uint8), "8.6")
    for wrong in (0, -0.1, np.nan):
        yield Case("quantise-scale", quantised(0, scale=wrong), quantised(0))
    yield Case("quantise-scale", quantised(0, scale=[0.1, 0, 0.1, 0.1]), quantised(0, scale=[0.1] * 4))
    half = single(
        "QuantizeLinear",
        given(TensorProto.FLOAT16),
        np.array(0.1, np.float16),
        np.array(0, np.int8),
        gives=TensorProto.INT8,
    )
    yield Case("quantise-scale-type", half, quantised(0), "8.6")
    yield Case("quantise-scale-type", half, half, "8.6", complies_in="10")


def _inputs() -> Iterator[Case]:
    axes = given(INT64, 2)
    yield Case(
        "reduce-axes",
        single("ReduceMean", given(), axes, opset=18),
        single("ReduceMean", given(), ints(2, 3), opset=18),
    )

    def cut(last: Any) -> Proto:
        return single("Slice", given(), ints(0), ints(2), last)

    yield Case("slice-axes", cut(given(INT64, 1)), cut(ints(2)))
    yield Case("slice-axes", cut(given(INT64, 1)), cut(given(INT64, 1)), "10.2", complies_in="10.3")

    def pad(last: Any) -> Proto:
        return single("Pad", given(), ints(1, 1), None, last, opset=18)

    yield Case("pad-axes", pad(given(INT64, 1)), pad(ints(2)))
    yield Case("pad-axes", pad(given(INT64, 1)), pad(given(INT64, 1)), "10.3", complies_in="10.4")

    def more(last: Any) -> Proto:
        return single("Unsqueeze", given(), last)

    yield Case("squeeze-axes", more(given(INT64, 1)), more(ints(0)), "11")

    def total(axis: Any) -> Proto:
        return single("CumSum", given(), axis)

    yield Case("cumsum-axis", total(given(INT64, 1)), total(ints(1)))

    def stft(step: Any, window: Any) -> Proto:
        return single("STFT", given(FLOAT, 1, 64, 1), step, window)

    yield Case("stft-step", stft(given(INT64, 1), np.ones(8, np.float32)), stft(ints(4), np.ones(8, np.float32)), "11")
    yield Case("stft-window", stft(ints(4), given(FLOAT, 8)), stft(ints(4), np.ones(8, np.float32)), "11")

    def hot(depth: Any) -> Proto:
        return single("OneHot", given(INT64, 4), depth, floats(0, 1))

    yield Case("onehot-depth", hot(given(INT64, 1)), hot(ints(3)))


def _shapes() -> Iterator[Case]:

    def grid(*sizes: Any) -> Proto:
        return single("GridSample", given(FLOAT, 1, 4, *sizes), given(FLOAT, 1, *sizes, len(sizes)), opset=20)

    yield Case("gridsample-rank", grid(8, 8, 8), grid(8, 8))

    def filtered(operator: str, axes: int) -> Proto:
        return single(operator, given(FLOAT, 1, 4, *[8] * axes), np.ones((4, 4, *[1] * axes), np.float32))

    for operator in ("Conv", "ConvTranspose"):
        yield Case("convolution-rank", filtered(operator, 4), filtered(operator, 1))
    yield Case("most-axes", single("Relu", given(FLOAT, *[1] * 9)), single("Relu", given(FLOAT, *[1] * 8)))
    nine = single("Reshape", given(FLOAT, 1, 4), ints(*[1] * 8, 4), shape=[1] * 8 + [4])
    for operator in ("ArgMax", "ArgMin"):
        vector, matrix = (single(operator, given(FLOAT, *shape), gives=INT64) for shape in ((4,), (1, 4)))
        yield Case("arg-rank", vector, matrix, "11")
    yield Case("most-axes", nine, single("Reshape", given(FLOAT, 1, 4), ints(4, 1), shape=[4, 1]))
    mixed = single("Attention", given(FLOAT, 1, 2, 8, 4), *(given(FLOAT, 1, 8, 8),) * 2, opset=23)
    yield Case("attention-rank", mixed, attention(), "10.14")

    def put(*shape: Any) -> Proto:
        return single("TensorScatter", given(FLOAT, *shape), given(FLOAT, *shape), opset=24)

    yield Case("tensorscatter-form", put(1, 8, 4), put(1, 2, 8, 4), "11")
    yield Case("eyelike-static", single("EyeLike", given(FLOAT, "N", 4)), single("EyeLike", given(FLOAT, 4, 4)))

    def hardest(size: Any) -> Proto:
        return single("Hardmax", given(FLOAT, 1, size))

    yield Case("hardmax-static", hardest("N"), hardest(4))
    yield Case("if-outputs", branches(("p", "p")), branches())
    yield Case("if-outputs", branches(ranks=(4, 3)), branches())
    yield Case("loop-length", loop(None), loop(np.array(3, np.int64)))
    yield Case("data-dependent-shape", single("NonZero", given(), gives=INT64), of_shape("NonZero"))
    yield Case("shape-from-data", sized_by("n"), sized_by("s"))


def _precision() -> Iterator[Case]:

    def total(op: Any, kind: Any, *shape: Any) -> Proto:
        return single(op, given(kind, *shape), axes=[2, 3], gives=kind, shape=(1, 4, 1, 1))

    yield Case("float16-sum", total("ReduceL2", HALF), total("ReduceL2", FLOAT))
    yield Case("float16-sum", total("ReduceL2", FLOAT), total("ReduceMean", FLOAT), precision="fp16")
    yield Case("float16-sum", total("ReduceL2", FLOAT), total("ReduceL2", FLOAT), precision="fp16", complies_in="11")
    yield Case("float16-sum", total("ReduceL1", HALF, 1, 4, 32, 32), total("ReduceL1", HALF, 1, 4, 31, 33))
    yield Case("float16-sum", squares_summed(), squares_summed(FLOAT))

    def power(n: Any) -> Proto:
        return single("Pow", given(HALF), floats(n, dtype=np.float16), gives=HALF)

    yield Case("float16-square", power(2.0), power(0.5))
    yield Case("float16-constant", plus(-1e9, FLOAT), plus(-6e4, FLOAT), precision="fp16")
    yield Case("float16-epsilon", plus(1e-5), plus(1e-4))


def _dla() -> Iterator[Case]:
    def dla(rule: str, breaks: Proto, complies: Proto, version: str = "10", **more: Any) -> Case:
        return Case(rule, breaks, complies, version, "orin", more.pop("precision", "fp16"), **more)

    yield dla("dla-availability", chain("Relu"), chain("Relu"), "11", complies_in="11.4")
    yield dla("dla-availability", chain("Relu"), chain("Relu"), "10.8", complies_in="10.7")
    yield dla("dla-dynamic", chain("Relu", shape=("N", 4, 8, 8)), chain("Relu"))
    yield dla("dla-operator", chain("HardSigmoid"), chain("Sigmoid"))
    yield dla("dla-operator", chain("GlobalAveragePool"), chain("GlobalMaxPool"))
    divided = single("Div", given(), given())
    yield dla("dla-operator", divided, divided, "8.6", complies_in="10")
    yield dla("dla-operator", chain("Neg"), of_shape("Neg"))

    def wide(n: Any) -> Proto:
        return chain("Relu", shape=(1, n, 1, 1))

    yield dla("dla-sizes", wide(8193), wide(8192))

    def batch(n: Any) -> Proto:
        return chain("Relu", shape=(n, 1, 1, 1))

    yield dla("dla-sizes", batch(4097), batch(4096))
    yield dla("dla-convolution", conv(33), conv(32))
    yield dla("dla-convolution", conv(3, strides=[9, 9]), conv(3, strides=[8, 8]))
    yield dla("dla-convolution", conv(3, pads=[32] * 4), conv(3, pads=[31] * 4))
    yield dla("dla-convolution", one_axis_conv(), conv(1))
    yield dla("dla-pool", pool([9, 8]), pool([8, 8]))
    yield dla("dla-pool", pool([8, 8], strides=[17, 17]), pool([8, 8], strides=[16, 16]))

    def joined(axis: Any) -> Proto:
        return single("Concat", given(), given(), axis=axis)

    yield dla("dla-concat", joined(2), joined(-3))

    def cut(axis: Any, step: Any = 1, *shape: Any) -> Proto:
        return single("Slice", given(FLOAT, *shape), ints(0), ints(2), ints(axis), ints(step))

    yield dla("dla-slice", cut(2, 2), cut(2, 1))
    yield dla("dla-slice", cut(0), cut(1))
    yield dla("dla-slice", cut(2, 1, 1, 4, 8), cut(2))
    yield dla("dla-resize", resize(scales=(1, 1, 33, 2)), resize(scales=(1, 1, 32, 2)))
    yield dla("dla-resize", resize(scales=(1, 1, 1.5, 2)), resize(scales=(1, 1, 1, 2)))
    yield dla(
        "dla-resize",
        resize("linear", (1, 1, 5, 5), coordinate_transformation_mode="half_pixel"),
        resize("linear", (1, 1, 4, 4), coordinate_transformation_mode="half_pixel"),
    )
    yield dla("dla-resize", resize(nearest_mode="ceil"), resize())

    def soft(*shape: Any) -> Proto:
        return single("Softmax", given(FLOAT, *shape), axis=1)

    yield dla("dla-softmax", soft(1, 1025, 2, 1), soft(1, 1024, 2, 1))
    yield dla("dla-softmax", soft(1, 8193, 1, 1), soft(1, 8192, 1, 1))

    def product(other: Any) -> Proto:
        return single("MatMul", given(FLOAT, 1, 1, 4, 4), other)

    yield dla("dla-product", product(given(FLOAT, 1, 1, 4, 4)), product(np.ones((4, 4), np.float32)))


def _cases() -> list[Case]:
    parts = (_standard, _functions, _attributes, _inputs, _shapes, _precision, _dla)
    return [case for part in parts for case in part()]


CASES = _cases()
