"""Where in subgraphs and local functions a name is that the main graph does not have."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from ..modelfile.subgraphs import nested
from .context import Context, tensor_selectors

_BODIES = {"If": "branches", "Loop": "body", "Scan": "body", "SequenceMap": "body"}


def whereabouts(context: Context, name: str, *, of_node: bool) -> str:
    """The end of a sentence on a tensor or node that is inside a subgraph or a local function; "" if it is not."""

    def found(graph: onnx.GraphProto | onnx.FunctionProto) -> bool:
        return any(name == node.name if of_node else name in node.output for node in graph.node)

    def sentence(place: str, nodes: Iterable[onnx.NodeProto]) -> str:
        outputs = next((tensor_selectors(node.output) for node in nodes), None)
        if outputs is None:
            said = "; the main graph does not call it"
        else:
            kept = context.suggestions.accepted(outputs, use="after")
            after = context.suggestions.after
            what = f"what the node puts out can be named{after and f' {after}'}"
            said = f"; {what}: {context.listed(kept)}" if kept else ""
        return f": it is inside {place}, where no block can be put{said}"

    index = context.index
    for node_index, node in enumerate(index.nodes):
        if any(map(found, nested(node))):
            body = _BODIES.get(node.op_type, "body")
            return sentence(f"the {body} of the node {index.label(node_index)!r} ({node.op_type})", [node])
    for function in index.model.structure.functions:
        if found(function):
            calls = (n for n in index.nodes if (n.op_type, n.domain) == (function.name, function.domain))
            return sentence(f"the local function {function.name!r}", calls)
    return ""
