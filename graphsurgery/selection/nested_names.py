"""Where in subgraphs and local functions a name is that the main graph does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx

from ..feature_map import Dimension
from ..graph.bodies import body_name, body_tensors
from ..graph.local_functions import Key, by_key, key_of
from ..graph.shapes import ShapeTable
from ..messages import listed, shape_text
from ..modelfile.subgraphs import nested
from .alternatives import sentence
from .context import Context

_Shape = tuple[Dimension, ...] | None


def whereabouts(context: Context, name: str, *, of_node: bool) -> str:
    """The end of a sentence on a tensor or node that is inside a subgraph or a local function; "" if it is not."""

    def outputs(node: onnx.NodeProto) -> list[str]:
        """The tensors of a node that are meant."""
        return [each for each in node.output if each and (name == node.name if of_node else name == each)]

    index, structure = context.index, context.model.structure
    tree = context.blocks.written_out() if structure.functions else None
    whole, origins = (structure, ()) if tree is None else (tree.view.index.model.structure, context.blocks.origins)
    for body in body_tensors(whole, origins):
        if body.name in outputs(body.node):
            holder = body.holder.node
            label = holder.name or f"{holder.op_type}#{body.holder.position}"
            place = f"the {body_name(holder)} of the node {label!r} ({holder.op_type})"
            if body.holder.calls:
                place += f" in the local function {body.holder.calls[-1].node.op_type!r}"
            return _told(place, [body.shape], sentence(context, body.around))
    for key, function in by_key(structure.functions).items():
        inner = [*function.node, *(each for node in function.node for graph in nested(node) for each in graph.node)]
        if any(map(outputs, inner)):
            found = list(_in_calls(context, key, outputs))
            calls = [caller for caller, _ in found] or [n for n, node in enumerate(index.nodes) if key_of(node) == key]
            instead = sentence(context, calls[0]) if calls else "the main graph does not call it"
            return _told(f"the local function {function.name!r}", [shape for _, shape in found], instead)
    return ""


def _in_calls(
    context: Context, function: Key, outputs: Callable[[onnx.NodeProto], list[str]]
) -> Iterator[tuple[int, _Shape]]:
    """The nodes of the main graph that lead to a function, and the shape that a tensor has there."""
    tree = context.blocks.written_out()
    if tree is None:
        return
    shapes = ShapeTable(tree.view.index)
    for node, origin in zip(tree.view.index.nodes, context.blocks.origins, strict=True):
        if origin.calls and key_of(origin.calls[-1].node) == function:
            for name in outputs(origin.node):
                position = list(origin.node.output).index(name)
                yield origin.caller, shapes.lookup(node.output[position])[1]


def _told(place: str, shapes: list[_Shape], instead: str) -> str:
    known = dict.fromkeys(shape_text(shape) for shape in shapes if shape is not None)
    sizes = f"; its shape there is {listed(known)}" if known else ""
    return f": it is inside {place}, where no block can be put{sizes}; {instead}"
