"""QuantizeLinear and DequantizeLinear: integer types, zero points, and biases in int32."""

from __future__ import annotations

from onnx import TensorProto

from ..options import Options
from ..rule import node_rule
from ..support import TYPE_NAMES
from ..view import Visit

_WITHOUT_ZERO = frozenset({"FP8", "FP4"})


@node_rule("QuantizeLinear", "DequantizeLinear", source="operators-8.6", instead="zero points of 0")
def quantise_zero_point(visit: Visit, options: Options) -> str | None:
    if not visit.input(2) or TYPE_NAMES.get(visit.type(visit.input(2))) in _WITHOUT_ZERO:
        return None
    value = visit.value(2)
    if value is None:
        return "its zero point is not a constant"
    return "its zero point is not 0; TensorRT quantises symmetrically only" if value.astype(int).any() else None


@node_rule("QuantizeLinear", source="importer", instead="int8 with zero points of 0")
def quantise_type(visit: Visit, options: Options) -> str | None:
    kind = visit.type(visit.output) or visit.type(visit.input(2)) or visit.attribute("output_dtype", 0)
    taken = options.support.types("DequantizeLinear") or frozenset()
    name = TYPE_NAMES.get(kind, f"ONNX element type {kind}")
    if not kind or name in taken:
        return None
    return f"it quantises to {name}; TensorRT {options.version} quantises to {', '.join(sorted(taken))}"


@node_rule(
    "DequantizeLinear",
    source="rtx-parser",
    instead="biases in float: quantize_static(..., extra_options={'QuantizeBias': False}) of onnxruntime",
)
def quantised_bias(visit: Visit, options: Options) -> str | None:
    if visit.type(visit.input(0)) != TensorProto.INT32:
        return None
    return "it dequantises int32, as onnxruntime quantises biases unless QuantizeBias is False; TensorRT refuses that"
