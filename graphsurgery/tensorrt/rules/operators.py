"""Operators of the standard set and their element types: every node against the table."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ..options import Options
from ..rule import WARNING, node_rule
from ..support import TYPE_NAMES
from ..view import Origin, Visit
from .plugins import is_plugin

_DATA_SLOT = {"Where": 1, "OneHot": 2}
_OF_OUTPUT = frozenset(
    {"ConstantOfShape", "RandomNormal", "RandomUniform", "Cast", "CastLike", "EyeLike"}
    | {f"{kind}Window" for kind in ("Blackman", "Hamming", "Hann")}
)
_CASTS = frozenset({"Cast", "CastLike"})
_STORES = {"value_float": 1, "value_floats": 1, "value_int": 7, "value_ints": 7}
_ANY_TYPE = frozenset({"If", "Loop", "Scan"})
_REPLACEMENTS = {
    "Gelu": "write it as x * 0.5 * (1 + Erf(x / sqrt(2))): opset 19 and earlier have no Gelu",
    "Mish": "write it as x * Tanh(Softplus(x)): opset 17 and earlier have no Mish",
    "Swish": "write it as x * Sigmoid(x): opset 23 and earlier have no Swish",
    "Attention": "write it as MatMul, scale, Softmax, MatMul: opset 22 and earlier have no Attention",
    "RMSNormalization": "write it with ReduceMean, Sqrt and Div: opset 22 and earlier have no RMSNormalization",
}


@node_rule(source="operators-11.0", instead="another operator, or a plugin of that name")
def operator(visit: Visit, options: Options) -> str | None:
    taken = options.support.types(visit.operator) is not None or is_plugin(visit, options)
    if taken or not visit.is_onnx:
        return None
    later = options.support.first_version(visit.operator)
    hint = _REPLACEMENTS.get(visit.operator)
    known = f"before {later}" if later else f"{options.version}"
    return f"TensorRT {known} has no importer for {visit.operator}" + (f"; {hint}" if hint else "")


def _known_from(visit: Visit, options: Options) -> str:
    return options.support.source_of_types(visit.operator)


@node_rule(source="operators-11.0", instead="a Cast to a type that the operator is taken in", cited=_known_from)
def type_(visit: Visit, options: Options) -> str | None:
    types = options.support.types(visit.operator) if visit.imported else None
    if types is None or visit.operator in _ANY_TYPE or _is_host_only(visit, options):
        return None
    for kind in _kinds(visit):
        if visit.operator == "DequantizeLinear" and kind == TensorProto.INT32:
            continue  # quantised_bias says what to do about it
        name = options.support.type_name(kind) if kind else "FP32"
        if name not in types and kind:
            spelled = TYPE_NAMES.get(kind) or f"ONNX element type {kind}"
            return f"TensorRT {options.version} takes {visit.operator} in {', '.join(sorted(types))}, not in {spelled}"
    return None


def _is_host_only(visit: Visit, options: Options) -> bool:
    """Whether a node computes constants or shapes alone, which documented types are not about."""
    host = visit.own_origin is not Origin.DATA and visit.operator != "Constant"
    return host and not options.support.asserts_types(visit.operator)


def _kinds(visit: Visit) -> list[int]:
    """The element types that the table's column is about: of the data that goes in, or what comes out."""
    if visit.operator == "Constant":
        return [attribute.t.data_type or _STORES.get(attribute.name, 0) for attribute in visit.node.attribute[:1]]
    of_input = [visit.type(visit.input(_DATA_SLOT.get(visit.operator, 0)))]
    if visit.operator not in _OF_OUTPUT:
        return of_input
    return [visit.type(name) for name in visit.outputs()] + (of_input if visit.operator in _CASTS else [])


@node_rule(source="operators-11.0", instead="export the model in float32", severity=WARNING)
def float64(visit: Visit, options: Options) -> str | None:
    if "FP64" in {TYPE_NAMES.get(visit.type(name)) for name in visit.outputs()}:
        return "TensorRT has no float64: it is computed in float32, and larger numbers are clamped"
    return None


@node_rule(source="operators-8.6", instead="constants within 32 bits", severity=WARNING, before=(9, 0))
def int64_range(visit: Visit, options: Options) -> str | None:
    if visit.operator == "Slice":
        return None  # a start or end past the last element means the last element, clamped or not
    limits = np.iinfo(np.int32)
    for slot, name in enumerate(visit.node.input):
        if TYPE_NAMES.get(visit.type(name)) != "INT64" or name not in visit.scope.values:
            continue
        value = visit.value(slot)
        if value is not None and value.size and (value.min() < limits.min or value.max() > limits.max):
            return f"the constant {name} is outside of 32 bits; TensorRT {options.version} clamps it"
    return None
