"""Bodies: the tensors in branches of If and in bodies of loops, with their types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import onnx

from ..feature_map import Dimension
from ..modelfile.subgraphs import nested
from .shapes import inferred, tensor_type

_NAMES = {"If": "branches", "Loop": "body", "Scan": "body", "SequenceMap": "body"}


class BodyTensor(NamedTuple):
    """A tensor that a node of a body gives."""

    around: int
    """index of the node of the main graph that the body belongs to"""
    node: onnx.NodeProto
    """what gives it"""
    name: str
    kind: int
    """element type number; 0 where it is not known"""
    shape: tuple[Dimension, ...] | None


def body_name(node: onnx.NodeProto) -> str:
    """How messages call the subgraphs of a node."""
    return _NAMES.get(node.op_type, "body")


def body_tensors(model: onnx.ModelProto) -> Iterator[BodyTensor]:
    """The tensors in the bodies of the nodes of the main graph, however deep, in order."""
    if not any(
        attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute
    ):
        return
    typed = inferred(model)
    nodes = (typed or model).graph.node
    for around, node in enumerate(nodes):
        for graph in nested(node):
            types: Mapping[str, onnx.TypeProto] = {
                value.name: value.type for value in (*graph.value_info, *graph.output)
            }
            for inner in graph.node:
                for name in filter(None, inner.output):
                    yield BodyTensor(around, inner, name, *tensor_type(types.get(name)))
