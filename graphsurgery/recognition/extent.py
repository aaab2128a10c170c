"""Extent: what anatomy is told of: a recognised block, or a single node that is in none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .block import RecognisedBlock
from .graph_view import View


class Extent(NamedTuple):
    """A recognised block, or a single node that is in none."""

    block: RecognisedBlock | None
    nodes: frozenset[int]
    entries: Sequence[str]
    last: int
    """the last of its nodes, in the order of the graph"""

    def fact(self, name: str) -> object:
        """What the block knows of itself; None where it is none, or does not know."""
        return self.block.facts.get(name) if self.block is not None else None

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a single convolution of one position."""
        conv = self.block is not None and self.block.type == "Conv"
        return conv and self.fact("kernel") == (1, 1) and self.fact("stride") == (1, 1)

    @property
    def is_convolution(self) -> bool:
        """Whether it is a single convolution."""
        return self.block is not None and self.block.type in ("Conv", "DWConv")

    @property
    def is_concat(self) -> bool:
        """Whether it only puts maps side by side."""
        return self.block is not None and self.block.type == "Concat"


def extents(view: View, blocks: Iterable[RecognisedBlock]) -> Mapping[int, Extent]:
    """Every node of a graph -> the extent that it is in."""
    found = {node: Extent(None, frozenset({node}), view.inputs(node), node) for node in view.active}
    for block in blocks:
        extent = Extent(block, block.nodes, block.entries, max(block.nodes, key=view.place.__getitem__))
        found.update(dict.fromkeys(block.nodes, extent))
    return found
