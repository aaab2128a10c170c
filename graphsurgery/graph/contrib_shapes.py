"""Operators of onnxruntime's own domain that do to shapes what one of ONNX's operators does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import onnx

from ..modelfile import payload

_DOMAIN = "com.microsoft"


class _StandIn(NamedTuple):
    """An operator of ONNX in the place of one of onnxruntime's."""

    op_type: str
    inputs: slice | tuple[int, ...]
    """which of the inputs it reads, in its own order"""
    applies: Callable[[Mapping[str, Any]], bool] = lambda _: True
    """whether a node with these attributes does that to shapes"""


def _channels_first(attributes: Mapping[str, Any]) -> bool:
    return not attributes.get("channels_last")


def _plain_product(attributes: Mapping[str, Any]) -> bool:
    return not any(attributes.get(name) for name in ("transA", "transB", "transBatchA", "transBatchB"))


_ALL, _FIRST = slice(None), slice(1)
_STAND_INS: dict[str, _StandIn] = {
    "QuantizeLinear": _StandIn("QuantizeLinear", _ALL),  # for 16-bit integers
    "DequantizeLinear": _StandIn("DequantizeLinear", _ALL),
    "FusedConv": _StandIn("Conv", slice(3)),
    "FusedGemm": _StandIn("Gemm", slice(3)),
    "FusedMatMul": _StandIn("MatMul", slice(2), _plain_product),
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu"), _StandIn("Identity", _FIRST)),
    **dict.fromkeys(("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"), _StandIn("Identity", _FIRST)),
    "QGemm": _StandIn("Gemm", (0, 3, 6)),
    "QLinearAdd": _StandIn("Add", (0, 3)),
    "QLinearMul": _StandIn("Mul", (0, 3)),
    "QLinearConcat": _StandIn("Concat", slice(2, None, 3)),
    "QLinearAveragePool": _StandIn("AveragePool", _FIRST, _channels_first),
    "QLinearGlobalAveragePool": _StandIn("GlobalAveragePool", _FIRST, _channels_first),
}


def use_stand_ins(graph: onnx.GraphProto) -> None:
    """Replace such operators in a copy that shapes are inferred on, in place; attributes stay as they are."""
    for node in graph.node:
        if node.domain != _DOMAIN or (found := _STAND_INS.get(node.op_type)) is None:
            continue
        if not found.applies({each.name: payload.attribute_value(each) for each in node.attribute}):
            continue
        given, chosen = list(node.input), found.inputs
        kept = given[chosen] if isinstance(chosen, slice) else [given[i] for i in chosen if i < len(given)]
        node.domain, node.op_type = "", found.op_type
        del node.input[:]
        node.input.extend(kept)
