"""Again: the parser stops at the first node that it cannot import; without that node, it tells the next.

What the node gives becomes an input of the model, with its type. Where that is not known, the rest stays untold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from onnx import helper

from ...graph.index import GraphIndex
from ...graph.shapes import ShapeTable
from ...modelfile.fields import GRAPH_INPUT, GRAPH_OUTPUT, NODE, Edit
from ...modelfile.model import ModelFile
from .opinion import Refusal

_ROUNDS = 10
"""how often it is asked again: each takes as long as the first time"""


def everything(
    model: ModelFile, first: Sequence[Refusal], parse: Callable[[ModelFile], Sequence[Refusal] | None]
) -> tuple[list[Refusal], bool]:
    """What is refused in a model, and whether that is all of it.

    ``first`` is what the parser refuses in it, ``parse`` what it refuses in a part of it; None is no answer.
    """
    found, new = list(first), list(first)
    index = GraphIndex(model)
    shapes, out = ShapeTable(index), set[int]()
    for _ in range(_ROUNDS):
        positions = {_position(refusal, index) for refusal in new}
        if None in positions or positions <= out:
            return found, False
        out |= {position for position in positions if position is not None}
        part = _without(model, index, shapes, out)
        refused = parse(part) if part is not None else None
        if refused is None:
            return found, False
        if not refused:
            return found, True
        left = [position for position in range(len(index.nodes)) if position not in out]
        new = [each if each.node < 0 or each.within else replace(each, node=left[each.node]) for each in refused]
        found += new
    return found, False


def _position(refusal: Refusal, index: GraphIndex) -> int | None:
    """The node of the main graph that is refused, or that holds the one that is."""
    if not refusal.within:
        return refusal.node if 0 <= refusal.node < len(index.nodes) else None
    name = refusal.within[0].rpartition(" (")[0]
    return next((i for i, node in enumerate(index.nodes) if name and node.name == name), None)


def _without(model: ModelFile, index: GraphIndex, shapes: ShapeTable, out: set[int]) -> ModelFile | None:
    """The model without some of its nodes; None where it cannot be told what they would have given."""
    edit, given = Edit(), [name for position in sorted(out) for name in index.nodes[position].output if name]
    for position in out:
        edit.replaced[NODE, position] = None
    outputs = [output.name for output in model.structure.graph.output]
    for position, name in enumerate(outputs):
        if name in given:
            edit.replaced[GRAPH_OUTPUT, position] = None
    for name in given:
        kind, shape = shapes.lookup(name)
        if not kind or shape is None or None in shape:
            return None
        edit.append(GRAPH_INPUT, helper.make_tensor_value_info(name, kind, shape))
    return model.edited(edit)
