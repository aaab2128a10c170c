"""Routing: the ways of the lines between boxes, and how much room they need.

Lines between neighbours in a column are straight; all others run in the gutters between the columns and in the
corridors between the bands, where no box is.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from .boxes import PORT, Box, Drawing, Frame, Line
from .tracks import tracks

_TRACK = 12.0  # between lines side by side
_CLOSE = 4.0  # two lines nearer than that look like one
_ASIDE = (0.0, 9.0, -9.0, 4.5, -4.5, 13.5, -13.5)  # how far from its place a line meets a box, if that is taken


@dataclass(frozen=True)
class Margins:
    """What is left free around boxes, in pixels."""

    left: float
    top: float
    right: float
    band: float
    """above and below the boxes of a band"""
    gutter: float
    """between columns, at least"""


def route(boxes: Sequence[Box], lines: Sequence[Line], bands: Sequence[tuple[str, float]], margins: Margins) -> Drawing:
    """The drawing of boxes that have a column, a band and a height in that band.

    ``bands``: title and height of the boxes in each.
    """
    return _Router(boxes, lines, bands, margins).drawing()


class _Router:
    """Knows how wide gutters and corridors have to be, and routes the lines through them."""

    def __init__(
        self, boxes: Sequence[Box], lines: Sequence[Line], bands: Sequence[tuple[str, float]], margins: Margins
    ) -> None:
        self._lines, self._sizes, self._margins = lines, bands, margins
        self._boxes = [box for box in boxes if box.role != PORT]
        self._ports = [box for box in boxes if box.role == PORT]
        """the first is above all boxes, the other below them: both as wide as all columns"""
        self._count = 1 + max((box.column for box in self._boxes), default=0)
        self._place: dict[str, int] = {}
        """how many boxes are above a box in its column"""
        self._last: dict[int, int] = {}
        """column -> how many boxes are above the last one in it"""
        from_the_top = sorted(self._boxes, key=lambda box: (box.column, box.band, box.y))
        for column, members in groupby(from_the_top, key=lambda box: box.column):
            for i, box in enumerate(members):
                self._place[box.key] = self._last[column] = i
        self._bent = [line for line in lines if not self._is_straight(line)]
        self._entry: dict[Line, float] = {}
        """the height at which a line enters its target"""
        self._entries: dict[int, list[tuple[float, str]]] = {}
        """gutter -> the heights at which lines enter a box from it, and from which box they come, in order"""
        self._starts: dict[str, float] = {}
        """box -> the height at which lines leave it"""
        self._corridors: list[dict[Line, int]] = [{} for _ in bands]
        """the lines that cross columns below each band"""
        for line in self._bent:
            if not self._is_next(line):
                corridor = self._corridors[self._corridor(line)]
                corridor[line] = len(corridor)

    def drawing(self) -> Drawing:
        bands, bottom = self._bands()
        for box in self._boxes:
            box.y += bands[box.band].start + self._margins.band
        for port, y in zip(self._ports, (0.0, bottom), strict=False):
            port.y = y
        self._center_heads()
        self._enter()
        ways = {line: self._heights(line, bands) for line in self._bent}
        on = self._tracks(ways)
        columns, right = self._columns(on)
        for box in self._boxes:
            box.x = columns[box.column].start + (columns[box.column].size - box.width) / 2
        for line in self._lines:
            line.points = self._way(line, ways[line], on, columns) if line in ways else self._straight(line)
        return Drawing(right, bottom, self._boxes, self._lines, bands, columns)

    # ------------------------------------------------------------------ which way

    def _is_straight(self, line: Line) -> bool:
        """Whether the two are neighbours in one column. What has an inside is entered and left from above to below."""
        source, target = line.source, line.target
        if PORT in (source.role, target.role):
            first = source.role != PORT or self._place.get(target.key) == 0
            return first and (target.role != PORT or self._place.get(source.key) == self._last[source.column])
        steps = self._place[target.key] - self._place[source.key]
        plain = source.inside is None and target.inside is None
        return source.column == target.column and (steps == 1 or (steps == -1 and plain))

    def _is_next(self, line: Line) -> bool:
        """Whether one gutter is all that lies between the two."""
        ends = (line.source.role, line.target.role)
        return PORT in ends or line.target.column in (line.source.column, line.source.column + 1)

    @staticmethod
    def _corridor(line: Line) -> int:
        """The corridor next to the source on the way to the target."""
        return line.source.band if line.target.band > line.source.band else max(line.source.band - 1, 0)

    # ------------------------------------------------------------------ heights

    def _bands(self) -> tuple[list[Frame], float]:
        y, found = self._margins.top, []
        tags: dict[int, dict[str, None]] = {}
        for box in self._boxes:
            tags.setdefault(box.band, {}).update(dict.fromkeys(box.tag.split()))
        for band, (title, size) in enumerate(self._sizes):
            height = size + 2 * self._margins.band
            found.append(Frame(title, y, height, tuple(tags.get(band, ()))))
            crossing = len(self._corridors[band])
            y += height + (_TRACK * (1 + crossing) if not self._ports else 0)
        return found, y

    def _center_heads(self) -> None:
        """A head that reads several bands stands in the middle of them."""
        heads = [box for box in self._boxes if box.column_role == "head"]
        if read := [line.source.exit for line in self._lines if line.enters_head]:
            top, end = min(box.y for box in heads), max(box.bottom for box in heads)
            for box in heads:
                box.y += max((min(read) + max(read) - top - end) / 2, self._margins.top - top)

    def _enter(self) -> None:
        """Where lines enter the boxes at their sides: those from above above the others."""
        entering: dict[str, list[Line]] = {}
        for line in self._bent:
            if line.target.role == PORT:
                self._entry[line] = line.target.y
            else:
                entering.setdefault(line.target.key, []).append(line)
        for members in entering.values():
            members.sort(key=lambda line: line.source.exit)
            for i, line in enumerate(members):
                gutter = line.target.column if self._returns(line) else line.target.column - 1
                taken = self._entries.setdefault(gutter, [])
                self._entry[line] = _free(
                    line.target, line.target.entry((i + 1) / (len(members) + 1)), line.source, taken
                )
                insort(taken, (self._entry[line], line.source.key))

    def _heights(self, line: Line, bands: Sequence[Frame]) -> list[float]:
        """The heights of a line's level stretches, from its source to its target."""
        start, end = self._start(line.source), self._entry[line]
        if self._is_next(line):
            return [start, end]
        below = self._corridor(line)
        return [start, bands[below].start + bands[below].size + _TRACK * (self._corridors[below][line] + 1), end]

    def _start(self, source: Box) -> float:
        """The height at which lines leave a box."""
        if source.key not in self._starts:
            taken = self._entries.get(source.column, [])
            self._starts[source.key] = source.exit if source.role == PORT else _free(source, source.exit, source, taken)
        return self._starts[source.key]

    # ------------------------------------------------------------------ widths

    @staticmethod
    def _returns(line: Line) -> bool:
        """Whether a line enters its target from the right."""
        return line.source.role == PORT or line.source.column == line.target.column

    def _gutters(self, line: Line) -> list[int]:
        """The gutters in which a line goes up or down: each is right of the column of that number."""
        if line.source.role == PORT:
            return [self._count - 1 if line.target.role == PORT else line.target.column]
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
        widths = dict.fromkeys(range(self._count), 0.0)
        for box in self._boxes:
            widths[box.column] = max(widths[box.column], box.width)
        titles = {box.column: box.column_role for box in reversed(self._boxes)}
        x, found = self._margins.left + _TRACK * (used[-1] + 2) * (used[-1] > 0), []
        for column in range(self._count):
            found.append(Frame(titles.get(column, ""), x, widths[column]))
            last = column == self._count - 1
            least = self._margins.right if last else self._margins.gutter
            x += widths[column] + max(least, _TRACK * (used[column] + 2) if used[column] else 0)
        return found, x

    # ------------------------------------------------------------------ points

    @staticmethod
    def _straight(line: Line) -> list[tuple[float, float]]:
        source, target = line.source, line.target
        down = source.y < target.y
        x = target.center if source.role == PORT else source.center
        return [(x, source.bottom if down else source.y), (x, target.y if down else target.bottom)]

    def _way(
        self, line: Line, heights: Sequence[float], on: Mapping[tuple[Line, int], int], columns: Sequence[Frame]
    ) -> list[tuple[float, float]]:
        points = []
        if line.source.role != PORT:
            points.append((line.source.right, heights[0]))
        for i, gutter in enumerate(self._gutters(line)):
            place = _TRACK * (on[line, i] + 1.5)
            x = columns[gutter].start + columns[gutter].size + place if gutter >= 0 else columns[0].start - place
            points += [(x, heights[i]), (x, heights[i + 1])]
        if line.target.role != PORT:
            points.append((line.target.right if self._returns(line) else line.target.x, heights[-1]))
        return points


def _free(box: Box, height: float, source: Box, taken: Sequence[tuple[float, str]]) -> float:
    """A height of a box, or one near it, at which no line from another than ``source`` runs in the same gutter, if
    there is one. ``taken``: heights and boxes in order.
    """
    near = (height + step for step in _ASIDE if box.y < height + step < box.bottom)
    return next((each for each in near if not _is_taken(each, source.key, taken)), height)


def _is_taken(height: float, key: str, taken: Sequence[tuple[float, str]]) -> bool:
    for i in range(bisect_left(taken, (height - _CLOSE, "")), len(taken)):
        if taken[i][0] > height + _CLOSE:
            return False
        if taken[i][1] != key:
            return True
    return False
