"""Layout: where the boxes and lines of a picture are.

As detectors are usually drawn: one band for each stride, from the image downwards; columns from left to right, the
backbone first, a new one wherever the neck turns round, the head last. A column that leads up to larger maps is filled
from the bottom. Lines between neighbours in a column are straight; all others run in the gutters between the columns
and in the corridors between the bands, where no box is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from .tracks import tracks

BOX = (196.0, 44.0)
"""width and height of a box"""
_GAP = 22.0  # between boxes
_TRACK = 12.0  # between lines side by side
_LEFT, _TOP, _MARGIN = 88.0, 64.0, 24.0
_ROLES = ("backbone", "neck", "head")
_ENDS = 0  # the band of what has no stride of its own: inputs


@dataclass(eq=False)
class Box:
    """One block, inserted block, input or output."""

    key: str
    role: str
    """backbone, neck, head, inserted, or end for inputs and outputs of the model"""
    column_role: str
    stride: int | None
    title: str
    text: str
    tooltip: str
    x: float = 0.0
    y: float = 0.0
    column: int = 0
    band: int = 0
    slot: int = 0
    """place in its column and band, from the top"""

    @property
    def middle(self) -> float:
        """Height of its middle."""
        return self.y + BOX[1] / 2


@dataclass(eq=False)
class Line:
    """A map on its way from one box to another."""

    source: Box
    target: Box
    points: list[tuple[float, float]] = field(default_factory=list)
    """corners of its way; the last is where the arrow ends"""

    @property
    def enters_head(self) -> bool:
        """Whether it leads to a head from elsewhere."""
        return self.target.column_role == "head" != self.source.column_role


@dataclass(frozen=True)
class Frame:
    """A band or a column: its title, where it begins and how far it goes."""

    title: str
    start: float
    size: float


@dataclass(frozen=True)
class Drawing:
    """Everything that is to be drawn, in pixels."""

    width: float
    height: float
    boxes: Sequence[Box]
    lines: Sequence[Line]
    bands: Sequence[Frame]
    columns: Sequence[Frame]


def arrange(boxes: Sequence[Box], wires: Iterable[tuple[str, str]]) -> Drawing:
    """Give boxes, in the order of the graph, their places, and route the wires between them (pairs of keys)."""
    by_key = {box.key: box for box in boxes}
    lines = [Line(by_key[source], by_key[target]) for source, target in dict.fromkeys(wires)]
    strides, upward = _columns(boxes)
    _place_heads(boxes, lines)
    _stack(boxes, upward)
    return _Router(boxes, lines, strides).drawing()


def _columns(boxes: Sequence[Box]) -> tuple[list[int], set[int]]:
    """Put the boxes into columns and bands. The strides from the first band on, and the columns that lead upwards."""
    _fill_strides(boxes)
    strides = sorted({box.stride or _ENDS for box in boxes})
    upward: set[int] = set()
    column = -1
    for role in _ROLES:
        direction, last = 0, None
        members = [box for box in boxes if box.column_role == role]
        column += bool(members)
        for box in members:
            stride = box.stride or _ENDS
            turn = 0 if last is None or role == "head" else (stride > last) - (stride < last)
            if turn and direction and turn != direction:
                column += 1
            direction = turn or direction
            if direction < 0:
                upward.add(column)
            box.column, box.band, last = column, strides.index(stride), stride
    return strides, upward


def _fill_strides(boxes: Sequence[Box]) -> None:
    """What has no known stride stands where the box before it in its column stands."""
    last: dict[str, int | None] = {}
    for box in boxes:
        if box.stride is None:
            box.stride = last.get(box.column_role, last.get("neck", last.get("backbone")))
        last[box.column_role] = box.stride


def _place_heads(boxes: Sequence[Box], lines: Sequence[Line]) -> None:
    """A head belongs to the band in the middle of those that it reads."""
    read = sorted(line.source.band for line in lines if line.enters_head)
    for box in boxes if read else ():
        if box.column_role == "head":
            box.band = read[len(read) // 2]


def _stack(boxes: Sequence[Box], upward: set[int]) -> None:
    cells: dict[tuple[int, int], list[Box]] = {}
    for box in boxes:
        cells.setdefault((box.column, box.band), []).append(box)
    for (column, band), cell in cells.items():
        tallest = max(len(other) for (_, beside), other in cells.items() if beside == band)
        for i, box in enumerate(cell):
            box.slot = tallest - 1 - i if column in upward else i


class _Router:
    """Knows how wide gutters and corridors have to be, and routes the lines through them."""

    def __init__(self, boxes: Sequence[Box], lines: Sequence[Line], strides: Sequence[int]) -> None:
        self._boxes, self._lines, self._strides = boxes, lines, strides
        self._count = 1 + max((box.column for box in boxes), default=0)
        self._place: dict[str, int] = {}
        """how many boxes are above a box in its column"""
        from_the_top = sorted(boxes, key=lambda box: (box.column, box.band, box.slot))
        for _, members in groupby(from_the_top, key=lambda box: box.column):
            self._place.update((box.key, i) for i, box in enumerate(members))
        self._bent = [line for line in lines if not self._is_straight(line)]
        self._entry: dict[str, list[Line]] = {}
        """what enters a box at its side"""
        self._rank: dict[Line, int] = {}
        """the place of a line among them, from the top"""
        self._level: dict[tuple[int, int], set[str]] = {}
        """column and height -> what leads to the box there"""
        self._corridors: list[dict[Line, int]] = [{} for _ in strides]
        """the lines that cross columns below each band"""
        for line in self._bent:
            self._entry.setdefault(line.target.key, []).append(line)
            if not self._is_next(line):
                corridor = self._corridors[self._corridor(line)]
                corridor[line] = len(corridor)

    def drawing(self) -> Drawing:
        bands, bottom = self._bands()
        for box in self._boxes:
            box.y = bands[box.band].start + _GAP + box.slot * (BOX[1] + _GAP)
        self._center_heads()
        for entering in self._entry.values():
            entering.sort(key=lambda line: line.source.middle)
            self._rank.update((line, i) for i, line in enumerate(entering))
        for line in self._bent:
            self._level.setdefault((line.target.column, round(line.target.middle)), set()).add(line.source.key)
        ways = {line: self._heights(line, bands) for line in self._bent}
        on = self._tracks(ways)
        columns, right = self._columns(on)
        for box in self._boxes:
            box.x = columns[box.column].start
        for line in self._lines:
            line.points = self._way(line, ways[line], on, columns) if line in ways else self._straight(line)
        return Drawing(right, bottom, self._boxes, self._lines, bands, columns)

    # ------------------------------------------------------------------ which way

    def _is_straight(self, line: Line) -> bool:
        """Whether the two are neighbours in one column."""
        source, target = line.source, line.target
        return source.column == target.column and abs(self._place[source.key] - self._place[target.key]) == 1

    @staticmethod
    def _is_next(line: Line) -> bool:
        """Whether one gutter is all that lies between the two."""
        return line.target.column in (line.source.column, line.source.column + 1)

    @staticmethod
    def _corridor(line: Line) -> int:
        """The corridor next to the source on the way to the target."""
        return line.source.band if line.target.band > line.source.band else max(line.source.band - 1, 0)

    # ------------------------------------------------------------------ heights

    def _bands(self) -> tuple[list[Frame], float]:
        y, found = _TOP, []
        for band, stride in enumerate(self._strides):
            slots = 1 + max((box.slot for box in self._boxes if box.band == band), default=0)
            height = slots * (BOX[1] + _GAP) + _GAP
            found.append(Frame(f"stride {stride}" if stride else "", y, height))
            y += height + _TRACK * (1 + len(self._corridors[band]))
        return found, y

    def _center_heads(self) -> None:
        """A head that reads several bands stands in the middle of them."""
        heads = [box for box in self._boxes if box.column_role == "head"]
        if read := [line.source.middle for line in self._lines if line.enters_head]:
            top, end = min(box.y for box in heads), max(box.y for box in heads) + BOX[1]
            for box in heads:
                box.y = max(box.y + (min(read) + max(read) - top - end) / 2, _TOP)

    def _heights(self, line: Line, bands: Sequence[Frame]) -> list[float]:
        """The heights of a line's level stretches, from its source to its target."""
        source, target = line.source, line.target
        end = target.y + BOX[1] * (self._rank[line] + 1) / (len(self._entry[target.key]) + 1)
        start = source.middle + (_TRACK if self._is_crowded(line) else 0)
        if self._is_next(line):
            return [start, end]
        below = self._corridor(line)
        return [start, bands[below].start + bands[below].size + _TRACK * (self._corridors[below][line] + 1), end]

    def _is_crowded(self, line: Line) -> bool:
        """Whether another line enters a box at the height at which this one leaves, in the same gutter."""
        source, column = line.source, line.source.column + 1
        return bool(self._level.get((column, round(source.middle)), set()) - {source.key})

    # ------------------------------------------------------------------ widths

    def _gutters(self, line: Line) -> list[int]:
        """The gutters in which a line goes up or down: each is right of the column of that number."""
        return [line.source.column] if self._is_next(line) else [line.source.column, line.target.column - 1]

    def _tracks(self, ways: Mapping[Line, Sequence[float]]) -> dict[tuple[Line, int], int]:
        """Line and which of its stretches -> its track in that gutter; stretches that do not meet share one."""
        stretches: dict[int, dict[tuple[Line, int], tuple[float, float]]] = {}
        for line, heights in ways.items():
            for i, gutter in enumerate(self._gutters(line)):
                low, high = sorted(heights[i : i + 2])
                stretches.setdefault(gutter, {})[line, i] = (low, high)
        found: dict[tuple[Line, int], int] = {}
        for members in stretches.values():
            found.update(zip(members, tracks(list(members.values())), strict=True))
        return found

    def _columns(self, on: Mapping[tuple[Line, int], int]) -> tuple[list[Frame], float]:
        used = dict.fromkeys(range(-1, self._count), 0)
        for (line, i), track in on.items():
            gutter = self._gutters(line)[i]
            used[gutter] = max(used[gutter], track + 1)
        titles = {box.column: box.column_role for box in reversed(self._boxes)}
        x, found = _LEFT + _TRACK * (used[-1] + 2) * (used[-1] > 0), []
        for column in range(self._count):
            found.append(Frame(titles.get(column, ""), x, BOX[0]))
            x += BOX[0] + max(48.0, _TRACK * (used[column] + 3)) * (column < self._count - 1)
        return found, x + max(_MARGIN, _TRACK * (used[self._count - 1] + 2))

    # ------------------------------------------------------------------ points

    @staticmethod
    def _straight(line: Line) -> list[tuple[float, float]]:
        source, target = line.source, line.target
        x, down = source.x + BOX[0] / 2, source.y < target.y
        return [(x, source.y + (BOX[1] if down else 0)), (x, target.y + (0 if down else BOX[1]))]

    def _way(
        self, line: Line, heights: Sequence[float], on: Mapping[tuple[Line, int], int], columns: Sequence[Frame]
    ) -> list[tuple[float, float]]:
        points = [(line.source.x + BOX[0], heights[0])]
        for i, gutter in enumerate(self._gutters(line)):
            place = _TRACK * (on[line, i] + 1.5)
            x = columns[gutter].start + BOX[0] + place if gutter >= 0 else columns[0].start - place
            points += [(x, heights[i]), (x, heights[i + 1])]
        same = line.source.column == line.target.column
        return [*points, (line.target.x + (BOX[0] if same else 0), heights[-1])]
