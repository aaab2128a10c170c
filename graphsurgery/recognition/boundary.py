"""Boundary: where a backbone ends, and which of its maps is read from outside at each stride.

The *trunk* is what leads to the deepest map that a neck enlarges or encodes, or that a head reads where there is no
neck. What else hangs on it is no backbone: laterals, and levels that are made of them. At the strides above the
deepest, the map that is read from outside of the trunk is the stage's end. At the deepest nothing branches off, so that
a stage and the neck's first convolutions stand in one line. There, the neck begins with what it does at the other
strides, too, and the stage ends as the other stages do; where neither tells, one narrowing 1x1 convolution is the
neck's projection.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

from .extent import Extent
from .graph_view import View
from .head_detection import describe
from .strides import Stride, Strides

_Kind: TypeAlias = tuple[object, ...]
_TAIL = 3
"""units that tell how a stage ends, where the last is a single convolution"""
_NOWHERE: Stride = (Fraction(0), Fraction(0))
_LAST = "the backbone's last map"
NO_STAGE = frozenset(
    {"Transpose", "Reshape", "Pad", "Split", "Slice", "MaxPool", "AveragePool", "BatchNormalization"}
    | {"LayerNormalization"}
)
"""nodes that end no stage: they prepare what comes next"""


@dataclass(frozen=True)
class Reading:
    """A map that could be the end of a stage, and what it would be then."""

    root: str
    what: str


@dataclass
class Backbone:
    """The backbone upstream of one set of sources."""

    nodes: set[int]
    stages: dict[Stride, list[str]] = field(default_factory=dict)
    """stride -> the maps that end the stage there, one for each image that has a stage of its own"""
    readings: dict[Stride, tuple[Reading, ...]] = field(default_factory=dict)
    """stride -> the maps of which one ends the stage, where structure does not tell which"""


class Boundary:
    """Finds the backbones of one model."""

    def __init__(
        self,
        view: View,
        strides: Strides,
        extents: Mapping[int, Extent],
        outside: Set[int],
        given: Collection[str],
    ) -> None:
        """``outside``: nodes that are no backbone for sure; ``given``: the maps that the neck among them gives."""
        self._view = view
        self._strides = strides
        self._extents = extents
        self._outside = outside
        self._given = given

    def find(self, sources: Sequence[str], *, exact: bool = False) -> Backbone:
        """The backbone upstream of ``sources``, the deepest maps that something else reads.

        ``exact``: nothing of a neck can be on the way to them.
        """
        trunk = self._upstream(sources)
        line = self._line(sources, trunk)
        if not line:
            return Backbone(trunk)
        deepest = self._level(self._output(line[0]))
        taps = {level: roots for level, roots in self._taps(trunk).items() if level < deepest}
        stage = [extent for extent in line if self._level(self._output(extent)) == deepest]
        cut, readings = (0, ()) if exact else self._cut(stage, trunk, taps, deepest)
        end = self._output(stage[cut])
        result = Backbone(self._upstream([end]))
        for own in self._by_image(result.nodes):
            for level, root in self._ends(self._line([end], own), own, taps).items():
                if level < deepest and root not in result.stages.setdefault(level, []):
                    result.stages[level].append(root)
        if readings:
            result.readings[deepest] = readings
        else:
            result.stages[deepest] = [end]
        return result

    def last_before_extras(self, maps: Sequence[str]) -> str:
        """Of the maps that a head without a neck reads, the last that is the backbone's.

        Levels that an SSD adds begin with a convolution that narrows the map, before one of stride 2.
        """
        ordered = sorted(maps, key=self._level)
        for last, following in pairwise(ordered):
            line = self._line([following], self._upstream([following]))
            outputs = [self._output(extent) for extent in line]
            place = outputs.index(last) if last in outputs else 0
            if place < 2 or not line[place - 1].is_pointwise or line[place - 2].fact("stride") != (2, 2):
                continue
            if _width(line[place - 1]) < _width(line[place - 1], "channels_in"):
                return last
        return ordered[-1]

    # ------------------------------------------------------------------ the trunk

    def _extent(self, root: str) -> Extent | None:
        """What produces a tensor; None for an input of the model."""
        return self._extents.get(self._view.index.producer.get(root, -1))

    def _output(self, extent: Extent) -> str:
        return extent.block.root if extent.block is not None else self._view.outputs(extent.last)[0]

    def _level(self, root: str) -> Stride:
        return self._strides.origin(root) or _NOWHERE

    def _upstream(self, roots: Iterable[str]) -> set[int]:
        found, pending = set[int](), list(roots)
        while pending:
            extent = self._extent(pending.pop())
            if extent is not None and extent.nodes.isdisjoint(found) and extent.nodes.isdisjoint(self._outside):
                found |= extent.nodes
                pending += extent.entries
        return found

    def _line(self, sources: Sequence[str], nodes: Set[int]) -> list[Extent]:
        """The extents that every path to the sources goes through, from the last."""
        place = self._view.place
        waiting: list[tuple[int, Extent]] = []
        seen, found = set[int](), list[Extent]()

        def add(roots: Iterable[str]) -> None:
            for root in roots:
                extent = self._extent(root)
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

    def _by_image(self, nodes: Set[int]) -> list[set[int]]:
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

    def _taps(self, trunk: Set[int]) -> dict[Stride, list[str]]:
        """Stride -> the maps of the trunk that are read from outside of it, in order."""
        view, found = self._view, dict[Stride, list[str]]()
        for node in view.order:
            for root in view.outputs(node) if node in trunk else ():
                if self._is_read_outside(root, trunk) and self._strides.is_in(root):
                    found.setdefault(self._level(root), []).append(root)
        return found

    def _is_read_outside(self, root: str, trunk: Set[int]) -> bool:
        return self._view.is_output(root) or not set(self._view.consumers(root)) <= trunk

    def _ends(self, line: Sequence[Extent], own: Set[int], taps: Mapping[Stride, Sequence[str]]) -> dict[Stride, str]:
        """Stride -> the end of the stage there: what is read from outside, else the last that all paths go through."""
        found: dict[Stride, str] = {}
        for position, extent in enumerate(line):
            root = self._output(extent)
            if self._strides.is_in(root) and not self._prepares(line, position):
                found.setdefault(self._level(root), root)
        for level, roots in taps.items():
            if inside := [root for root in roots if self._view.producer(root) in own]:
                found[level] = inside[-1]
        return found

    def _prepares(self, line: Sequence[Extent], position: int) -> bool:
        """Whether an extent of the line only prepares what comes next: a node such as Pad, or the widening convolution
        with which the next inverted residual begins.
        """
        extent = line[position]
        if extent.block is None:
            return self._view.op(extent.last) in NO_STAGE
        behind = line[position - 1] if position else None
        before = line[position + 1] if position + 1 < len(line) else None
        strided = behind is not None and behind.fact("depthwise") and behind.fact("stride") == (2, 2)
        return bool(_widens(extent) and strided) and not (before is not None and before.fact("depthwise"))

    # ------------------------------------------------------------------ the deepest stage

    def _cut(
        self, line: Sequence[Extent], trunk: Set[int], taps: Mapping[Stride, Sequence[str]], deepest: Stride
    ) -> tuple[int, tuple[Reading, ...]]:
        """Which extent of the deepest stage is its end, and the readings where it could be another one."""
        start = self._branching(line, trunk)
        laterals = self._laterals(trunk, taps)
        for first in range(start + 1):
            for kinds in laterals:
                if self._begins(line[first:], kinds):
                    return max(start, first + len(kinds)), ()
        tails = [self._tail(extent) for roots in taps.values() if (extent := self._extent(roots[-1]))]
        for kinds in self._repeated(deepest):
            stop = start + len(kinds)
            if self._begins(line[start:], kinds) and self._tail(line[stop]) in tails:
                return stop, ()
        ends = {tail[0] for tail in tails if len(tail) == 1}
        for position in range(start, len(line)):
            if self._kind(line[position]) in ends:
                return position, ()
            if not line[position].is_convolution or _widens(line[position]):
                break
        return self._without_projection(line, start, tails)

    def _branching(self, line: Sequence[Extent], trunk: Set[int]) -> int:
        """The first place in the stage that is read from outside, if there are only convolutions behind it."""
        found = 0
        for position, extent in enumerate(line[:-1]):
            if not extent.is_convolution:
                return position if self._is_read_outside(self._output(extent), trunk) else found
            if self._is_read_outside(self._output(extent), trunk):
                found = position
        return found

    def _begins(self, line: Sequence[Extent], kinds: Sequence[_Kind]) -> bool:
        """Whether a line begins with these kinds, and goes on."""
        return len(line) > len(kinds) and all(self._kind(e, width=True) == k for e, k in zip(line, kinds, strict=False))

    def _without_projection(
        self, line: Sequence[Extent], start: int, tails: Collection[Sequence[_Kind]]
    ) -> tuple[int, tuple[Reading, ...]]:
        last = line[start]
        if start + 1 >= len(line) or not last.is_pointwise or _widens(last):
            return start, ()
        before = line[start + 1]
        own, other = self._tail(last) in tails, self._tail(before) in tails
        if own != other:
            return (start if own else start + 1), ()
        if not own and before.is_convolution and not before.fact("depthwise"):
            alike = next((extent for extent in line[start + 2 :] if self._tail(extent) in tails), None)
            if alike is None:
                return start + 1, ()
            return start, (
                Reading(self._output(alike), f"{_LAST}, if that ends as the stages at the other strides do"),
                Reading(self._output(before), f"{_LAST}, if only the 1x1 convolution behind it is the neck's"),
            )
        whole = before.block is not None and not before.is_convolution
        if not own and (whole or self._view.op(before.last) == "Add"):
            return start + 1, ()
        return start, (
            Reading(self._output(before), f"{_LAST}, if the 1x1 convolution behind it is the neck's"),
            Reading(self._output(last), f"{_LAST}, if the 1x1 convolution before it is the end of a stage"),
        )

    # ------------------------------------------------------------------ what is alike

    def _laterals(self, trunk: Set[int], taps: Mapping[Stride, Sequence[str]]) -> list[list[_Kind]]:
        """What stands between the maps that are read from outside and the neck, each from its end."""
        found: list[list[_Kind]] = []
        for level, roots in taps.items():
            side = self._side(roots, trunk, level)
            for extent in side.values():
                output = self._output(extent)
                if all(self._extents[p].last in side for p in self._view.consumers(output)):
                    continue
                line = self._line([output], {node for each in side.values() for node in each.nodes})
                kinds = [self._kind(each, width=True) for each in line]
                if line and not set(line[-1].entries).isdisjoint(roots) and kinds not in found:
                    found.append(kinds)
        return sorted(found, key=len, reverse=True)

    def _repeated(self, deepest: Stride) -> list[list[_Kind]]:
        """What the neck does before the head at its other strides: its last block, or its last convolutions."""
        found: list[list[_Kind]] = []
        for root in self._given:
            if self._level(root) >= deepest:
                continue
            kinds, extent = list[_Kind](), self._extent(root)
            while extent is not None and extent.last in self._outside and len(extent.entries) == 1:
                if extent.is_convolution or not kinds:
                    kinds.append(self._kind(extent, width=True))
                if not extent.is_convolution:
                    break
                extent = self._extent(extent.entries[0])
            if kinds not in found and kinds:
                found.append(kinds)
        return found

    def _side(self, roots: Sequence[str], trunk: Set[int], level: Stride) -> dict[int, Extent]:
        """The extents that hang on maps of the trunk, at their stride."""
        view, found = self._view, dict[int, Extent]()
        pending = [p for root in roots for p in view.consumers(root)]
        while pending:
            extent = self._extents[pending.pop()]
            if extent.last in found or extent.last in trunk or extent.last in self._outside:
                continue
            if self._level(self._output(extent)) == level:
                found[extent.last] = extent
                pending += view.downstream(extent.last)
        return found

    def _tail(self, extent: Extent) -> tuple[_Kind, ...]:
        """How a line ends with an extent: with one larger block, or with some convolutions or nodes."""
        found = [self._kind(extent)]
        while not (extent.block is not None and extent.block.parts) and len(found) < _TAIL and extent.entries:
            before = self._extent(extent.entries[0])
            if before is None:
                break
            extent = before
            found.append(self._kind(extent))
        return tuple(found)

    def _kind(self, extent: Extent, *, width: bool = False) -> _Kind:
        """What an extent computes; larger blocks by their type and the types of their parts."""
        block = extent.block
        if block is not None and block.parts:
            return (block.type, frozenset(part.type for _, part in block.parts))
        kind = describe(block, self._view.op(extent.last))
        return (*kind, block.facts.get("channels_out")) if width and block is not None else kind


def _width(extent: Extent, which: str = "channels_out") -> int:
    width = extent.fact(which)
    return width if isinstance(width, int) else 0


def _widens(extent: Extent) -> bool:
    """Whether it is a pointwise convolution with more channels behind it than in front of it."""
    return extent.is_pointwise and _width(extent) > _width(extent, "channels_in")
