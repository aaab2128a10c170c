"""StageEnd: where the deepest stage of a backbone ends, and what follows it is a neck's.

At the deepest stride nothing branches off, so that a stage and the neck's first convolutions stand in one line. There,
the neck begins with what it does at the other strides, too, and the stage ends as the other stages do; where neither
tells, one narrowing 1x1 convolution is the neck's projection.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .extent import Extent
from .graph_view import View
from .paths import Kind, Paths, widens
from .strides import Stride

_LAST = "the backbone's last map"
_ALIKE = f"{_LAST}, if that ends as the stages at the other strides do"
_MERGING = frozenset({"Concat", "Add"})
_NECKS = ("SPPCSPC",)
"""blocks that a neck begins with, and no backbone ends with"""


@dataclass(frozen=True)
class Reading:
    """A map that could be the end of a stage, and what it would be then."""

    root: str
    what: str


class End(NamedTuple):
    """The map that ends a stage, and the readings where it could be another one."""

    root: str
    readings: tuple[Reading, ...] = ()


class StageEnd:
    """Finds the end of the deepest stage of one trunk."""

    def __init__(
        self, view: View, paths: Paths, given: Collection[str], trunk: Set[int], taps: Mapping[Stride, Sequence[str]]
    ) -> None:
        """``given``: the maps that the neck gives; ``taps``: those of the trunk that are read from outside."""
        self._view = view
        self._paths = paths
        self._given = given
        self._trunk = trunk
        self._taps = taps

    def find(self, line: Sequence[Extent], deepest: Stride) -> End:
        """Where the deepest stage ends.

        ``line``: the extents that every path to the trunk's deepest map goes through, from the last.
        """
        stage = self._at(line, deepest)
        merged = self._before_merge(stage)
        if merged is not None:
            stage = self._at(self._paths.line([merged], self._trunk), deepest)
        place, readings = self._cut(stage, deepest)
        return End(self._paths.output(stage[place]), readings)

    def of_one_stride(self, line: Sequence[Extent], deepest: Stride) -> End:
        """The same where a head at one stride reads the last map of the line, and no other stride tells of a neck."""
        stage = self._at(line, deepest)
        finer: dict[Stride, tuple[Kind, ...]] = {}
        for extent in line[len(stage) :]:
            finer.setdefault(self._paths.level(self._paths.output(extent)), self._paths.tail(extent))
        like = [extent for extent in stage if self._paths.tail(extent) in finer.values()]
        last = self._paths.output(stage[0])
        if not like or like[0] is stage[0]:
            return End(last)
        return End(
            last,
            (
                Reading(self._paths.output(like[0]), _ALIKE),
                Reading(last, f"{_LAST}, if nothing is between it and the head"),
            ),
        )

    def _at(self, line: Sequence[Extent], level: Stride) -> list[Extent]:
        return [extent for extent in line if self._paths.level(self._paths.output(extent)) == level]

    def _before_merge(self, line: Sequence[Extent]) -> str | None:
        """The map that a neck merges, before all else, with the halved end of a finer stage (the GiraffeNeckV2).

        None where there is no such merge, or the stages of the other strides have one, too.
        """
        merged = self._merged(line)
        if merged is None:
            return None
        for level, roots in self._taps.items():
            if self._merged(self._at(self._paths.line(roots[-1:], self._trunk), level)) is not None:
                return None
        return merged

    def _merged(self, line: Sequence[Extent]) -> str | None:
        """What the last merge of a line joins with the halved end of a finer stage."""
        finer = {root for roots in self._taps.values() for root in roots}
        for extent in line:
            if self._view.op(extent.last) not in _MERGING:
                continue
            halved = {
                entry
                for entry in extent.entries
                if (source := self._paths.extent(entry)) is not None
                and source.fact("stride") == (2, 2)
                and not finer.isdisjoint(source.entries)
            }
            others = [entry for entry in extent.entries if entry not in halved]
            if halved and len(others) == 1:
                return others[0]
        return None

    def _cut(self, line: Sequence[Extent], deepest: Stride) -> tuple[int, tuple[Reading, ...]]:
        """Which extent of the deepest stage is its end, and the readings where it could be another one."""
        for position, extent in enumerate(line[:-1]):
            if extent.block is not None and extent.block.type in _NECKS:
                return position + 1, ()
        start = self._branching(line)
        laterals = self._laterals()
        for first in range(start + 1):
            for kinds in laterals:
                if self._begins(line[first:], kinds):
                    return self._unlike(line, max(start, first + len(kinds)))
        tails = self._tails
        for kinds in self._repeated(deepest):
            stop = start + len(kinds)
            if self._begins(line[start:], kinds) and self._paths.tail(line[stop]) in tails:
                return stop, ()
        ends = {tail[0] for tail in tails if len(tail) == 1}
        for position in range(start, len(line)):
            if self._paths.kind(line[position]) in ends:
                return position, ()
            if not line[position].is_convolution or widens(line[position]):
                break
        return self._without_projection(line, start)

    @cached_property
    def _tails(self) -> list[tuple[Kind, ...]]:
        """How the stages at the other strides end."""
        ends = (self._paths.extent(roots[-1]) for roots in self._taps.values())
        return [self._paths.tail(extent) for extent in ends if extent is not None]

    def _unlike(self, line: Sequence[Extent], place: int) -> tuple[int, tuple[Reading, ...]]:
        """The end behind the neck's laterals, with readings where that fuses branches and the other stages end with a
        block which is further on: then the branches are one more stage, or the neck's context module.
        """
        found = line[place]
        fuses = found.is_convolution and place + 1 < len(line) and line[place + 1].is_concat
        if not fuses or self._paths.tail(found) in self._tails:
            return place, ()
        blocks = (extent for extent in line[place + 2 :] if extent.block is not None and extent.block.parts)
        alike = next((extent for extent in blocks if self._paths.tail(extent) in self._tails), None)
        if alike is None:
            return place, ()
        return place, (
            Reading(self._paths.output(alike), _ALIKE),
            Reading(self._paths.output(found), f"{_LAST}, if the neck begins with what it does at the other strides"),
        )

    def _branching(self, line: Sequence[Extent]) -> int:
        """The first place in the stage that is read from outside, if there are only convolutions behind it."""
        found = 0
        for position, extent in enumerate(line[:-1]):
            if not extent.is_convolution:
                return position if self._paths.is_read_outside(self._paths.output(extent), self._trunk) else found
            if self._paths.is_read_outside(self._paths.output(extent), self._trunk):
                found = position
        return found

    def _begins(self, line: Sequence[Extent], kinds: Sequence[Kind]) -> bool:
        """Whether a line begins with these kinds, and goes on."""
        return len(line) > len(kinds) and all(
            self._paths.kind(e, width=True) == k for e, k in zip(line, kinds, strict=False)
        )

    def _without_projection(self, line: Sequence[Extent], start: int) -> tuple[int, tuple[Reading, ...]]:
        last = line[start]
        if start + 1 >= len(line) or not last.is_pointwise or widens(last):
            return start, ()
        before = line[start + 1]
        tails = self._tails
        own, other = self._paths.tail(last) in tails, self._paths.tail(before) in tails
        if own != other:
            return (start if own else start + 1), ()
        if not own and before.is_convolution and not before.fact("depthwise"):
            alike = next((extent for extent in line[start + 2 :] if self._paths.tail(extent) in tails), None)
            if alike is None:
                return start + 1, ()
            return start, (
                Reading(self._paths.output(alike), _ALIKE),
                Reading(self._paths.output(before), f"{_LAST}, if only the 1x1 convolution behind it is the neck's"),
            )
        whole = before.block is not None and bool(before.block.parts)
        if not own and (whole or self._view.op(before.last) == "Add"):
            return start + 1, ()
        return start, (
            Reading(self._paths.output(before), f"{_LAST}, if the 1x1 convolution behind it is the neck's"),
            Reading(self._paths.output(last), f"{_LAST}, if the 1x1 convolution before it is the end of a stage"),
        )

    # ------------------------------------------------------------------ what is alike

    def _laterals(self) -> list[list[Kind]]:
        """What stands between the maps that are read from outside and the neck, each from its end."""
        found: list[list[Kind]] = []
        for level, roots in self._taps.items():
            side = self._side(roots, level)
            for extent in side.values():
                output = self._paths.output(extent)
                if all(self._paths.extents[p].last in side for p in self._view.consumers(output)):
                    continue
                line = self._paths.line([output], {node for each in side.values() for node in each.nodes})
                kinds = [self._paths.kind(each, width=True) for each in line]
                if line and not set(line[-1].entries).isdisjoint(roots) and kinds not in found:
                    found.append(kinds)
        return sorted(found, key=len, reverse=True)

    def _repeated(self, deepest: Stride) -> list[list[Kind]]:
        """What the neck does before the head at its other strides: its last block, or its last convolutions."""
        found: list[list[Kind]] = []
        for root in self._given:
            if self._paths.level(root) >= deepest:
                continue
            kinds, extent = list[Kind](), self._paths.extent(root)
            while extent is not None and extent.last in self._paths.outside and len(extent.entries) == 1:
                if extent.is_convolution or not kinds:
                    kinds.append(self._paths.kind(extent, width=True))
                if not extent.is_convolution:
                    break
                extent = self._paths.extent(extent.entries[0])
            if kinds not in found and kinds:
                found.append(kinds)
        return found

    def _side(self, roots: Sequence[str], level: Stride) -> dict[int, Extent]:
        """The extents that hang on maps of the trunk, at their stride."""
        view, found = self._view, dict[int, Extent]()
        pending = [p for root in roots for p in view.consumers(root)]
        while pending:
            extent = self._paths.extents[pending.pop()]
            if extent.last in found or extent.last in self._trunk or extent.last in self._paths.outside:
                continue
            if self._paths.level(self._paths.output(extent)) == level:
                found[extent.last] = extent
                pending += view.downstream(extent.last)
        return found
