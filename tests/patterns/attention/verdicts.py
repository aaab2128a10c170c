"""Whether a block that was built is right: its numbers, its validity, its element types, its fitness for TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.patterns.attention.harness import HALVES, Array, Built, inputs, trait

TOLERANCES = {
    "float32": (1e-5, 1e-5),
    "float16": (2.5e-3, 1e-3),
    "bfloat16": (2e-2, 1e-2),
    "float64": (1e-10, 1e-10),
}
"""(absolute, for signals of order one; relative)"""

ROUNDED = 2.0
"""How much wider they are where every intermediate result is rounded to half precision; the relative part then counts
the input as well, since an error of the gate is an error of that much of the input, however small the output is."""


def assert_close(
    actual: Array,
    expected: Array,
    x: Array,
    dtype: str,
    what: str = "",
    *,
    factor: float = 1.0,
    rounded: bool = False,
    slack: float = 0.0,
    rounding: Callable[[], float] = lambda: 0.0,
) -> None:
    """The project's tolerance for the type; its absolute part shrinks with an input smaller than 1, down to 1e-3.

    ``slack`` comes on top; ``rounding`` is asked for where that does not suffice, see verification.conditioning.
    """
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}"
    absolute, relative = TOLERANCES[dtype]
    scale = min(max(float(np.abs(x.astype(np.float64)).max()), 1e-3), 1.0)
    error = np.abs(actual.astype(np.float64) - expected)
    size = np.abs(expected)
    if rounded:
        size, factor = np.maximum(size, np.abs(x.astype(np.float64))), ROUNDED * factor
    allowed = factor * (absolute * scale + relative * size) + slack
    excess = float(np.nan_to_num(error / allowed, nan=np.inf).max())
    if excess > 1.0:
        allowed = np.maximum(allowed, rounding() * np.maximum(size, np.abs(x.astype(np.float64))))
        excess = float(np.nan_to_num(error / allowed, nan=np.inf).max())
    assert excess <= 1.0, f"{what}: the error is {excess:.3g} times the tolerance, {error.max():.3g} at most"


def assert_agrees(
    built: Built,
    run: Callable[[Array], Array],
    cases: Sequence[tuple[str, Array]] | None = None,
    *,
    rounded: bool = False,
    what: str = "",
) -> None:
    """One evaluator against the PyTorch module, on all inputs of the site."""
    factor = trait(built.block.name, "FACTOR", 1.0)
    for name, x in inputs(built.feature) if cases is None else cases:
        label = f"{what} {built.block.spelled}, {built.lowering}, {built.feature}, opset {built.opset}, {name}"
        expected = built.expected(x)
        assert_close(
            run(x),
            expected,
            x,
            built.feature.dtype,
            label,
            factor=factor,
            rounded=rounded,
            slack=built.slack(x),
            rounding=partial(built.rounding, x),
        )


def assert_valid(built: Built) -> None:
    """The checker with type and shape inference, strict inference to the declared shape, no name twice."""
    onnx.checker.check_model(built.model, full_check=True)
    bare = onnx.ModelProto()
    bare.CopyFrom(built.model)
    bare.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    shape = dimensions(inferred.graph.output[0])
    declared = dimensions(built.graph.input[0])
    # before opset 15 inference does not see what Shape gives, and loses a tensor that is reshaped to it
    lost = not shape and not built.feature.static and built.opset < 15 and {"Shape", "Reshape"} <= set(built.operators)
    assert len(shape) == 4 or lost
    assert lost or [a for a, b in zip(shape, declared, strict=True) if isinstance(b, int)] == [
        b for b in declared if isinstance(b, int)
    ], f"inferred {shape}, declared {declared}"
    names = [node.name for node in built.graph.node]
    tensors = [name for node in built.graph.node for name in node.output] + [t.name for t in built.graph.initializer]
    assert all(names)
    assert len(names) == len(set(names))
    assert len(tensors) == len(set(tensors))


def dimensions(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


FORBIDDEN = {"Shape", "Expand", "Pow", "Flatten", "Gemm", "ConstantOfShape", "Range"}
"""Never in a template for TensorRT at a site of known height and width; a Reshape has a constant shape there, a Gather
constant indices."""

TENSORRT = {
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "Div", "Equal",
    "Erf", "Exp", "Gather", "GatherND", "Gemm", "GridSample", "HardSigmoid", "InstanceNormalization",
    "LayerNormalization", "Log", "MatMul", "Max", "MaxPool", "Mul", "Pad", "ReduceMax", "ReduceMean", "ReduceSum",
    "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Sub", "Tanh", "TopK",
    "Transpose", "Unsqueeze", "Upsample", "Where",
}  # fmt: skip
"""Operators of templates that TensorRT's ONNX parser lists as supported in 8.6, 10.0, 10.1, 10.16 and 11.1, for
float32 and float16, and from 10.0 on for bfloat16 too. Source: docs/operators.md of onnx/onnx-tensorrt at those
versions. Its restrictions on these are tested one by one in assert_tensorrt_friendly."""


def assert_tensorrt_friendly(built: Built) -> None:
    """Supported operators only, in the forms that the parser takes; constants where it wants constants."""
    operators = set(built.operators)
    assert operators <= TENSORRT
    if built.feature.static:
        assert not operators & FORBIDDEN
    constants = built.constants
    inferred = onnx.shape_inference.infer_shapes(built.model).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*inferred.value_info, *inferred.output)}
    for node in built.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type.startswith("Reduce"):
            assert len(node.input) == 1 or node.input[1] in constants
        chosen = node.op_type == "Gather" and "TopK" in operators  # by what the map holds, not by its shape
        if node.op_type in ("Reshape", "Gather", "Slice") and built.feature.static and not chosen:
            assert all(name in constants for name in node.input[1:])
        if node.op_type == "AveragePool":
            assert len(attributes["kernel_shape"]) == 2
            assert set(attributes.get("dilations", [1])) == {1}
            assert attributes.get("ceil_mode", 0) == 0
        if node.op_type in ("Conv", "BatchNormalization", "InstanceNormalization"):
            assert all(name in constants for name in node.input[1:])
        if node.op_type == "Resize" and len(node.input) > 2:
            assert attributes["mode"] == b"nearest"
            assert attributes["coordinate_transformation_mode"] == b"asymmetric"
            assert attributes["nearest_mode"] == b"floor"
        if node.op_type in ("Resize", "Upsample") and built.feature.static:
            assert all(name in constants for name in node.input[1:] if name)
        # an operand of another rank would be reshaped by an extra layer
        if node.op_type in ("Add", "Sub", "Mul", "Div", "Max", "MatMul") and built.feature.static:
            # but for weight and bias of a linear layer, which are constants and reshaped when the engine is built
            fitting = {ranks[node.output[0]], *({"MatMul": [2], "Add": [2]}.get(node.op_type, []))}
            assert all(len(constants[name].dims) in fitting for name in node.input if name in constants)


def assert_types(built: Built) -> None:
    """Every floating-point constant in the site's type, but for what a Resize wants in float32; none is unused.

    Half-precision blocks may have float32 between two Casts, and what is chosen with TopK has numbers.
    """
    allowed = {built.feature.onnx_type}
    if built.feature.dtype in HALVES and "Cast" in built.operators:
        allowed.add(TensorProto.FLOAT)
    read = {name for node in built.graph.node for name in node.input}
    constants = built.constants
    assert set(constants) <= read, f"unused: {sorted(set(constants) - read)}"
    for_resize = {name for node in built.graph.node if node.op_type in ("Resize", "Upsample") for name in node.input}
    for name, tensor in constants.items():
        if tensor.data_type != TensorProto.INT64 and name not in for_resize:
            assert tensor.data_type in allowed, name
    if built.feature.static:
        inferred = onnx.shape_inference.infer_shapes(built.model, strict_mode=True)
        kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
        made = [name for node in built.graph.node for name in node.output if name != built.subgraph.output]
        chosen = {TensorProto.INT64, TensorProto.BOOL} if "TopK" in built.operators else set()
        assert {kinds[name] for name in made if name not in constants} <= allowed | chosen
