"""Boundary: where a backbone ends, and which of its maps is read from outside at each stride.

The *trunk* is what leads to the deepest map that a neck enlarges or encodes, or that a head reads where there is no
neck. What else hangs on it is no backbone: laterals, and levels that are made of them. At the strides above the
deepest, the map that is read from outside of the trunk is the stage's end; stage_end.py finds that of the deepest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

from .extent import Extent
from .graph_view import View
from .input_images import POOLS
from .paths import Paths, widens, width_of
from .stage_end import End, Reading, StageEnd
from .strides import Stride, Strides
from .tokens import last_of_transformer

NO_STAGE = frozenset(
    {"Transpose", "Reshape", "Pad", "Split", "Slice", "MaxPool", "AveragePool", "BatchNormalization"}
    | {"LayerNormalization"}
)
"""nodes that end no stage: they prepare what comes next"""


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
        self._paths = Paths(view, strides, extents, outside)
        self._given = given

    def find(self, sources: Sequence[str], *, of_head: bool = False, strides: int = 1) -> Backbone:
        """The backbone upstream of ``sources``, the deepest maps that something else reads.

        ``of_head``: a head reads them, at as many ``strides``, and nothing makes maps larger.
        """
        trunk = self._paths.upstream(sources)
        line = self._paths.line(sources, trunk)
        if not line:
            return Backbone(trunk)
        line = self._without_pooled_levels(line)
        deepest = self._paths.level(self._paths.output(line[0]))
        taps = {level: roots for level, roots in self._taps(trunk).items() if level < deepest}
        stage = StageEnd(self._view, self._paths, self._given, trunk, taps)
        if (last := last_of_transformer(self._view, self._strides, self._paths, line)) is not None:
            found = End(last)
        elif of_head and strides > 1:  # nothing of a neck can be on the way
            found = End(self._paths.output(line[0]))
        else:
            found = stage.of_one_stride(line, deepest) if of_head else stage.find(line, deepest)
        end, readings = found
        result = Backbone(self._paths.upstream([end]))
        stages = self._stages(end, result.nodes, taps)
        result.stages = {level: roots for level, roots in stages.items() if level < deepest}
        if readings:
            result.readings[deepest] = readings
        else:
            result.stages[deepest] = [end]
        return result

    def of_whole(self, last: str) -> dict[Stride, list[str]]:
        """Stride -> the ends of the stage there, in a network that is a backbone only and has ``last`` as its last map.

        Where such a network gives maps, and this one is none of them, it goes on where its maps cannot be followed.
        """
        trunk = self._paths.upstream([last])
        taps = {
            level: given
            for level, roots in self._taps(trunk).items()
            if (given := [root for root in roots if self._view.is_output(root)])
        }
        stages = self._stages(last, trunk, taps)
        if not self._view.is_output(last) and (taps or self._goes_on(trunk)):
            stages.pop(self._paths.level(last), None)
        return stages

    def last_before_extras(self, maps: Sequence[str]) -> str:
        """Of the maps that a head without a neck reads, the last that is the backbone's.

        Levels that an SSD adds begin with a convolution that narrows the map, before one of stride 2.
        """
        ordered = sorted(maps, key=self._paths.level)
        for last, following in pairwise(ordered):
            line = self._paths.line([following], self._paths.upstream([following]))
            outputs = [self._paths.output(extent) for extent in line]
            place = outputs.index(last) if last in outputs else 0
            if place < 2 or not line[place - 1].is_pointwise or line[place - 2].fact("stride") != (2, 2):
                continue
            if width_of(line[place - 1]) < width_of(line[place - 1], "channels_in"):
                return last
        return ordered[-1]

    # ------------------------------------------------------------------ the trunk

    def _without_pooled_levels(self, line: list[Extent]) -> list[Extent]:
        """A line without the deepest levels that have nothing but a pooling each: the neck adds them (EfficientDet)."""
        levels = [self._paths.level(self._paths.output(extent)) for extent in line]
        poolings = [self._view.op(extent.last) in POOLS for extent in line]
        deepest = next((level for level, pools in zip(levels, poolings, strict=True) if not pools), None)
        if deepest is None or deepest >= levels[0]:
            return line
        return [extent for level, extent in zip(levels, line, strict=True) if level <= deepest]

    def _taps(self, trunk: Set[int]) -> dict[Stride, list[str]]:
        """Stride -> the maps of the trunk that are read from outside of it, in order."""
        view, found = self._view, dict[Stride, list[str]]()
        for node in view.order:
            for root in view.outputs(node) if node in trunk else ():
                if self._paths.is_read_outside(root, trunk) and self._strides.is_in(root):
                    found.setdefault(self._paths.level(root), []).append(root)
        return found

    def _stages(self, last: str, trunk: set[int], taps: Mapping[Stride, Sequence[str]]) -> dict[Stride, list[str]]:
        """Stride -> the ends of the stage there, one for each image that has a stage of its own."""
        found: dict[Stride, list[str]] = {}
        for own in self._paths.by_image(trunk):
            for level, root in self._ends(self._paths.line([last], own), own, taps).items():
                if root not in found.setdefault(level, []):
                    found[level].append(root)
        return found

    def _ends(self, line: Sequence[Extent], own: Set[int], taps: Mapping[Stride, Sequence[str]]) -> dict[Stride, str]:
        """Stride -> the end of the stage there: what is read from outside, else the last that all paths go through."""
        found: dict[Stride, str] = {}
        unclear = set[Stride]()
        computes = False
        for position, extent in enumerate(line):
            root = self._paths.output(extent)
            if not self._strides.is_in(root):
                # what else is made of the tokens goes on where no map is
                computes = computes or self._is_residual(extent) or self._paths.is_read_outside(root, own)
            elif not self._prepares(line, position):
                level = self._paths.level(root)
                if computes and level not in found:
                    unclear.add(level)
                found.setdefault(level, root)
                computes = False
        found = {level: root for level, root in found.items() if level not in unclear}
        for level, roots in taps.items():
            if inside := [root for root in roots if self._view.producer(root) in own]:
                found[level] = inside[-1]
        return found

    def _is_residual(self, extent: Extent) -> bool:
        """Whether two branches are added: what a layer of a transformer ends with."""
        return self._view.op(extent.last) == "Add" and len(extent.entries) > 1

    def _goes_on(self, trunk: Set[int]) -> bool:
        """Whether a transformer, or layers over the channels of maps in NHWC, follow a trunk."""
        seen, pending = set(trunk), [p for node in trunk for p in self._view.downstream(node)]
        while pending:
            node = pending.pop()
            if node not in seen:
                seen.add(node)
                extent = self._paths.extents.get(node)
                if extent is not None and self._is_residual(extent):
                    return True
                pending += self._view.downstream(node)
        return False

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
        return bool(widens(extent) and strided) and not (before is not None and before.fact("depthwise"))
