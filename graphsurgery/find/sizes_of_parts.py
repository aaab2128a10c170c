"""Parts of models with open sizes, which are found at sizes of one's own: as the model has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..graph.index import GraphIndex
from ..graph.part import Part
from ..graph.shapes import ShapeTable


def with_sizes(part: Part, table: ShapeTable) -> Part | None:
    """A part with the sizes of its map as another copy of its model has them; None where the map has no four."""
    shape = table.lookup(part.input)[1]
    if shape is None or len(shape) != 4:
        return None
    batch, *others = (size if isinstance(size, int) else None for size in shape)
    height, width = others[:2] if part.channels_last else others[1:]
    return replace(part, feature=replace(part.feature, batch=batch, height=height, width=width))


def closed(part: Part, index: GraphIndex, rank: Mapping[int, int]) -> Part | None:
    """A part of a copy at some sizes with the nodes of the model ``index`` that compute sizes of what enters it, or is
    inside, for it alone; None where somebody else reads what is inside.

    ``rank``: of each node, its place in an order in which each comes after those that it reads.
    """
    own = set(part.nodes)
    pending = [*part.nodes]
    while pending:
        for name in index.named_outputs[pending.pop()]:
            if name != part.output:
                readers = set(index.consumers.get(name, ())) - own
                if name in index.outputs or not all(_gives_sizes(index, each) for each in readers):
                    return None
                own |= readers
                pending += readers
    inside = {part.input, *(name for each in own for name in index.named_outputs[each])}
    of_inside = list[int]()
    for node_index in sorted(rank, key=rank.__getitem__):
        read = (name for name in index.reads(node_index) if index.is_activation(name))
        if _gives_sizes(index, node_index) and inside.issuperset(read):
            inside.update(index.named_outputs[node_index])
            of_inside.append(node_index)
    for node_index in reversed(of_inside):
        if own.issuperset(index.downstream(index.named_outputs[node_index])):
            own.add(node_index)
    return replace(part, nodes=tuple(sorted(own, key=rank.__getitem__)))


def _gives_sizes(index: GraphIndex, node_index: int) -> bool:
    """Whether a node gives nothing but sizes."""
    return bool(index.named_outputs[node_index]) and index.sizes.issuperset(index.named_outputs[node_index])
