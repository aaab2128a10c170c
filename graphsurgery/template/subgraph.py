"""Subgraph: the nodes, initializers and output of one lowered block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx


@dataclass
class Subgraph:
    """What a template has become: protobuf messages and where each parameter of the block went."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]
    output: str
    stored: dict[str, dict[str, Any]]
    """parameter key -> how to read it back from the model (see folding.read_back)"""
    warnings: list[str]
