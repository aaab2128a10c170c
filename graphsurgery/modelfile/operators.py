"""Which operator a node is: the names of ONNX's operators mean those of ONNX, not others that are called the same."""

from __future__ import annotations

from functools import lru_cache

import onnx

STANDARD = frozenset({"", "ai.onnx"})
"""how models spell the domain of ONNX's own operators"""
_ONNXRUNTIME = "com.microsoft"
_ALIKE = frozenset(
    {"Attention", "DequantizeLinear", "GatherND", "Gelu", "GridSample", "Pad", "QLinearConv", "QuantizeLinear"}
    | {"Range", "RotaryEmbedding", "Trilu", "Unique"}
)
"""onnxruntime's operators that compute what those of ONNX do that are called the same"""


def operator(node: onnx.NodeProto) -> str:
    """The operator of a node: ``Conv`` for ONNX's, ``BiasGelu`` where ONNX has none of that name, and
    ``com.microsoft.nchwc:Conv``, with its domain, for another operator that only has the name of one of ONNX's.
    """
    return _operator(node.domain, node.op_type) if node.domain else node.op_type


def is_namesake(node: onnx.NodeProto) -> bool:
    """Whether a node only has the name of one of ONNX's operators, and may compute anything."""
    return bool(node.domain) and operator(node) != node.op_type


@lru_cache(maxsize=4096)
def _operator(domain: str, name: str) -> str:
    same = domain in STANDARD or (domain == _ONNXRUNTIME and name in _ALIKE)
    return name if same or not onnx.defs.has(name, "") else f"{domain}:{name}"
