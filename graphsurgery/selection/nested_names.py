"""Where in nested graphs and local functions a name is that the main graph does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import onnx

from ..graph.index import GraphIndex
from ..messages import listed

_BODIES = {"If": "branches", "Loop": "body", "Scan": "body", "SequenceMap": "body"}


def whereabouts(index: GraphIndex, name: str, *, of_node: bool, shaped: Callable[[str, str], str]) -> str:
    """The end of a sentence on a tensor or node that lies in a body or in a local function; "" if it does not."""
    for position, node in enumerate(index.nodes):
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute) and any(
            name in _names(graph.node, of_node) for graph in _graphs(node)
        ):
            what = f"the {_BODIES.get(node.op_type, 'body')} of the node {index.label(position)!r} ({node.op_type})"
            return f": it is inside {what}, where no block can be put; {_address(node, shaped)}"
    for function in index.model.structure.functions:
        if name in _names(function.node, of_node):
            calls = [n for n in index.nodes if (n.op_type, n.domain) == (function.name, function.domain)]
            address = _address(calls[0], shaped) if calls else "the main graph does not call it"
            return f": it is inside the local function {function.name!r}, where no block can be put; {address}"
    return ""


def _address(node: onnx.NodeProto, shaped: Callable[[str, str], str]) -> str:
    outputs = listed([shaped(f"tensor:{name}", name) for name in node.output if name])
    return f"what the node puts out can be named: {outputs}"


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of a node, and those of the nodes in them."""
    pending = [node]
    while pending:
        for attribute in pending.pop().attribute:
            for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield graph
                pending += graph.node


def _names(nodes: Sequence[onnx.NodeProto], of_node: bool) -> set[str]:
    if of_node:
        return {node.name for node in nodes}
    return {name for node in nodes for name in node.output}
