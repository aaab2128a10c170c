"""How large the outputs of a node can be, told from its inputs before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from math import inf, prod
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from ..modelfile.operators import STANDARD
from .inference import infer

Array: TypeAlias = np.ndarray[Any, Any]

NO_LARGER = frozenset(
    {"Cast", "Flatten", "Identity", "NonZero", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
    | {"ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"}
    | {"Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid"}
    | {"Sign", "Sin", "Softplus", "Sqrt", "Tanh"}
)
"""operators whose output has no more elements than the first input, or one; NonZero and Shape: times its rank"""
BROADCAST = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod"}
    | {"Mul", "Or", "Pow", "Sub", "Sum", "Where"}
)
"""operators whose inputs are stretched to one shape, that of the output"""
_SMALL = 64
"""elements of an input that can be a shape, axes or scales: no tensor has so many dimensions"""


def most_elements(
    node: onnx.NodeProto, inputs: Mapping[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]
) -> float:
    """At most so many elements the outputs of a node have together; infinite, or no number, where that cannot be told.
    Nothing is computed for it.
    """
    given = [inputs[name] for name in node.input if name]
    sizes = [value.size for value in given]
    if node.op_type in NO_LARGER and given:
        return max(sizes[0], 1) * (given[0].ndim if node.op_type in ("NonZero", "Shape") else 1)
    if node.op_type in BROADCAST and given:
        return _stretched([value.shape for value in given])
    if node.op_type == "Expand" and len(given) == 2:
        return _stretched([given[0].shape, _sizes_in(given[1])])
    if node.op_type == "Concat":
        return sum(sizes)
    if node.op_type == "Gather":
        return prod(sizes)
    if node.op_type == "ConstantOfShape" and given:
        return prod(_sizes_in(given[0]))
    return _inferred_elements(node, inputs, opsets)


def _sizes_in(shape: Array) -> list[float]:
    """The sizes that a tensor holds: infinite where it does not hold whole numbers, -1 as 1."""
    return [abs(int(size)) for size in shape.flat] if shape.dtype.kind in "iu" else [inf]


def _stretched(shapes: Iterable[Sequence[float]]) -> float:
    """Elements of the shape that several are stretched to; too many rather than too few where they do not fit."""
    return prod(max(sizes) for sizes in zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1))


def _inferred_elements(
    node: onnx.NodeProto, inputs: Mapping[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]
) -> float:
    """The same by ONNX's own inference, from the shapes of the inputs and the values of the small ones."""
    alone = onnx.helper.make_graph([node], "node", [], [onnx.ValueInfoProto(name=name) for name in node.output if name])
    alone.node[0].domain = domain_of(node)
    for name, value in inputs.items():
        if value.size <= _SMALL:
            alone.initializer.append(numpy_helper.from_array(value, name))
        else:
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            alone.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    try:
        model = onnx.helper.make_model(alone, opset_imports=list(opsets))
        outputs = infer(model, strict=True).graph.output
    except Exception:  # it raises whatever it does not like of the node
        return inf
    return sum(_declared(value.type.tensor_type) for value in outputs)


def _declared(kind: onnx.TypeProto.Tensor) -> float:
    """Elements of a tensor of this type; infinite where its shape is not known in full."""
    if not kind.HasField("shape"):
        return inf
    return prod(size.dim_value if size.HasField("dim_value") else inf for size in kind.shape.dim)


def domain_of(named: onnx.NodeProto | onnx.OperatorSetIdProto) -> str:
    """The domain of an operator or an operator set, the standard one always spelled alike."""
    return "" if named.domain in STANDARD else str(named.domain)
