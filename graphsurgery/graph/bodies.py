"""Bodies: the tensors in branches of If and in bodies of loops, with their types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx

from ..feature_map import Dimension
from ..modelfile.subgraphs import nested, subgraphs
from .origins import Origin
from .shapes import inferred, tensor_type

_NAMES = {"If": "branches", "Loop": "body", "Scan": "body", "SequenceMap": "body"}


class BodyTensor(NamedTuple):
    """A tensor that a node of a body gives."""

    around: int
    """index of the node of the main graph that the body, or the call that it is in, belongs to"""
    holder: Origin
    """the node that the body belongs to"""
    node: onnx.NodeProto
    """what gives it"""
    name: str
    kind: int
    """element type number; 0 where it is not known"""
    shape: tuple[Dimension, ...] | None


def body_name(node: onnx.NodeProto) -> str:
    """How messages call the subgraphs of a node."""
    return _NAMES.get(node.op_type, "body")


def body_tensors(model: onnx.ModelProto, origins: Sequence[Origin] = ()) -> Iterator[BodyTensor]:
    """The tensors in the bodies of the nodes of the main graph, however deep, in order.

    ``origins``: where the nodes stand in the file, for a model whose calls are written out; nodes and tensors are then
    called as they are there.
    """
    if not any(map(subgraphs, model.graph.node)):
        return
    origins = origins or [Origin((), position, node) for position, node in enumerate(model.graph.node)]
    for node, origin in zip((inferred(model) or model).graph.node, origins, strict=True):
        for graph, own in zip(nested(node), nested(origin.node), strict=False):
            types: Mapping[str, onnx.TypeProto] = {
                value.name: value.type for value in (*graph.value_info, *graph.output)
            }
            same = len(graph.node) == len(own.node)  # not where there are calls in the body
            for inner, outer in zip(graph.node, own.node if same else graph.node, strict=True):
                for here, name in zip(inner.output, outer.output, strict=False):
                    if name:
                        yield BodyTensor(origin.caller, origin, outer, name, *tensor_type(types.get(here)))
