"""Subgraph: the nodes, initializers and output of one lowered block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx


@dataclass
class Subgraph:
    """A lowered block as protobuf messages, and where each of its parameters went."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]
    output: str
    stored: dict[str, dict[str, Any]]
    """parameter key -> how to read it back from the model (see weight_folding.read_back)"""
    warnings: list[str]
