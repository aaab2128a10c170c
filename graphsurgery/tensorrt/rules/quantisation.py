"""QuantizeLinear and DequantizeLinear: integer types, zero points, and biases in int32."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from ...feature_map import Dimension
from ..options import Options
from ..rule import node_rule
from ..support import TYPE_NAMES
from ..view import Origin, Visit

_WITHOUT_ZERO = frozenset({"FP8", "FP4"})


@node_rule("QuantizeLinear", "DequantizeLinear", source="operators-8.6", instead="zero points of 0")
def quantise_zero_point(visit: Visit, options: Options) -> str | None:
    if not visit.input(2) or TYPE_NAMES.get(visit.type(visit.input(2))) in _WITHOUT_ZERO:
        return None
    value = visit.value(2)
    if value is None:
        return "its zero point is not a constant"
    return "its zero point is not 0; TensorRT quantises symmetrically only" if value.astype(int).any() else None


@node_rule(
    "QuantizeLinear", "DequantizeLinear", source="importer", instead="a calibration that sees other values than 0"
)
def quantise_scale(visit: Visit, options: Options) -> str | None:
    value = visit.value(1)
    if value is None or (value.astype(float) > 0).all():
        return None
    return "its scale is not above 0 everywhere; scales have to be positive"


@node_rule("QuantizeLinear", "DequantizeLinear", source="importer", instead="a scale in float32", before=(9, 0))
def quantise_scale_type(visit: Visit, options: Options) -> str | None:
    name = TYPE_NAMES.get(visit.type(visit.input(1)))
    is_weight = visit.origin(visit.input(1)) is Origin.CONSTANT
    if name in (None, "FP32") or not is_weight:
        return None
    return f"its scale is {name}, whose bytes TensorRT {options.version} reads as float32"


@node_rule("QuantizeLinear", source="importer", instead="int8 with zero points of 0")
def quantise_type(visit: Visit, options: Options) -> str | None:
    kind = visit.type(visit.output) or visit.type(visit.input(2)) or visit.attribute("output_dtype", 0)
    taken = options.support.types("DequantizeLinear") or frozenset()
    name = TYPE_NAMES.get(kind, f"ONNX element type {kind}")
    if not kind or name in taken:
        return None
    return f"it quantises to {name}; TensorRT {options.version} quantises to {', '.join(sorted(taken))}"


@node_rule("QuantizeLinear", "DequantizeLinear", source="importer", instead="an even number of elements")
def quantise_even(visit: Visit, options: Options) -> str | None:
    kinds = {TYPE_NAMES.get(visit.type(name)) for name in (visit.input(0), visit.output)}
    shape = visit.shape(visit.input(0))
    if kinds.isdisjoint({"INT4", "FP4"}) or not shape or not all(isinstance(d, int) for d in shape):
        return None
    return (
        f"two numbers of 4 bits are packed together, and {list(shape)} is an odd number of them"
        if _odd(shape)
        else None
    )


def _odd(shape: Sequence[Dimension]) -> bool:
    return all(size % 2 for size in shape if isinstance(size, int))


@node_rule(
    "DequantizeLinear",
    source="rtx-parser",
    instead="biases in float: quantize_static(..., extra_options={'QuantizeBias': False}) of onnxruntime",
)
def quantised_bias(visit: Visit, options: Options) -> str | None:
    if visit.type(visit.input(0)) != TensorProto.INT32:
        return None
    return "it dequantises int32, as onnxruntime quantises biases unless QuantizeBias is False; TensorRT refuses that"
