"""Paths: walks through the extents of a graph, and how what stands on them is compared."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence, Set
from fractions import Fraction
from typing import TypeAlias

from .extent import Extent
from .graph_view import View
from .head_detection import describe
from .strides import Stride, Strides

Kind: TypeAlias = tuple[object, ...]
"""what an extent computes"""
_TAIL = 3
"""units that tell how a stage ends, where the last is a single convolution"""
_NOWHERE: Stride = (Fraction(0), Fraction(0))


class Paths:
    """The extents of one network, without those that are no backbone for sure (``outside``)."""

    def __init__(self, view: View, strides: Strides, extents: Mapping[int, Extent], outside: Set[int]) -> None:
        self._view = view
        self._strides = strides
        self.extents = extents
        self.outside = outside

    def extent(self, root: str) -> Extent | None:
        """What produces a tensor; None for an input of the model."""
        return self.extents.get(self._view.index.producer.get(root, -1))

    def output(self, extent: Extent) -> str:
        return extent.block.root if extent.block is not None else self._view.outputs(extent.last)[0]

    def level(self, root: str) -> Stride:
        return self._strides.origin(root) or _NOWHERE

    def upstream(self, roots: Iterable[str]) -> set[int]:
        found, pending = set[int](), list(roots)
        while pending:
            extent = self.extent(pending.pop())
            if extent is not None and extent.nodes.isdisjoint(found) and extent.nodes.isdisjoint(self.outside):
                found |= extent.nodes
                pending += extent.entries
        return found

    def line(self, sources: Sequence[str], nodes: Set[int]) -> list[Extent]:
        """The extents that every path to the sources goes through, from the last."""
        place = self._view.place
        waiting: list[tuple[int, Extent]] = []
        seen, found = set[int](), list[Extent]()

        def add(roots: Iterable[str]) -> None:
            for root in roots:
                extent = self.extent(root)
                if extent is not None and extent.last in nodes and extent.last not in seen:
                    seen.add(extent.last)
                    heapq.heappush(waiting, (-place[extent.last], extent))

        add(sources)
        while waiting:
            _, extent = heapq.heappop(waiting)
            if not waiting:
                found.append(extent)
            add(extent.entries)
        return found

    def by_image(self, nodes: Set[int]) -> list[set[int]]:
        """The nodes downstream of each input that some of them read as an image."""
        view = self._view
        images = (name for name in view.index.free_inputs if self._strides.is_in(name))
        found = []
        for image in images:
            reached = set[int]()
            pending = [p for p in view.consumers(image) if p in nodes]
            while pending:
                node = pending.pop()
                if node not in reached:
                    reached.add(node)
                    pending += [p for p in view.downstream(node) if p in nodes]
            if reached:
                found.append(reached)
        return found

    def is_read_outside(self, root: str, trunk: Set[int]) -> bool:
        return self._view.is_output(root) or not set(self._view.consumers(root)) <= trunk

    def tail(self, extent: Extent) -> tuple[Kind, ...]:
        """How a line ends with an extent: with one larger block, or with some convolutions or nodes."""
        found = [self.kind(extent)]
        while not (extent.block is not None and extent.block.parts) and len(found) < _TAIL and extent.entries:
            before = self.extent(extent.entries[0])
            if before is None:
                break
            extent = before
            found.append(self.kind(extent))
        return tuple(found)

    def kind(self, extent: Extent, *, width: bool = False) -> Kind:
        """What an extent computes; larger blocks by their type and the types of their parts."""
        block = extent.block
        if block is not None and block.parts:
            return (block.type, frozenset(part.type for _, part in block.parts))
        kind = describe(block, self._view.op(extent.last))
        return (*kind, block.facts.get("channels_out")) if width and block is not None else kind


def width_of(extent: Extent, which: str = "channels_out") -> int:
    width = extent.fact(which)
    return width if isinstance(width, int) else 0


def widens(extent: Extent) -> bool:
    """Whether it is a pointwise convolution with more channels behind it than in front of it."""
    return extent.is_pointwise and width_of(extent) > width_of(extent, "channels_in")
