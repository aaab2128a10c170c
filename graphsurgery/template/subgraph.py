"""Subgraph: the nodes, initializers and output of one lowered block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx

from ..feature_map import FeatureMap


@dataclass
class Subgraph:
    """A lowered block as protobuf messages, and where each of its parameters went."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]
    output: str
    stored: dict[str, dict[str, Any]]
    """parameter key -> how to read it back from the model (see weight_folding.read_back)"""
    warnings: list[str]
    edition: int = 1
    """the first edition of the forms (see writer.EDITION) in which it is written so"""

    def as_model(self, x: str, feature: FeatureMap, *, opset: int, ir_version: int) -> onnx.ModelProto:
        """The block alone, from its input ``x``, which is that map, to its output, which is such a map again."""
        shape = [size or f"s{i}" for i, size in enumerate(feature.shape)]
        ends = [onnx.helper.make_tensor_value_info(name, feature.onnx_type, shape) for name in (x, self.output)]
        graph = onnx.helper.make_graph(self.nodes, "block", ends[:1], ends[1:], self.initializers)
        opsets = [onnx.helper.make_opsetid("", opset)]
        return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
