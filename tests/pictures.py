"""Models with insertions, and what is drawn of them, for the tests of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, pairwise

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.nesting import Level
from graphsurgery.outline.outline import Outline
from graphsurgery.outline.picture.boxes import PORT, Box, Drawing, Line, Wires, parts
from graphsurgery.selection.sites import SiteFinder
from tests.exports import export
from tests.recognition.roles import MODELS, exported

SVG = "{http://www.w3.org/2000/svg}"
"""what names of elements start with"""
CASES = {
    "yolov8n": (("simam", "C2f[3]"), ("se", "C2f[5]")),
    "rtdetr-l": (("simam", "HGBlock[4]"), ("se", "RepC3[1]"), ("se", "HGBlock[5]")),
    "yolo11n": (("se", "C3k2[*]"), ("simam", "C3k2[2].m.0"), ("se", "C3k2[3].m.0.m.1"), ("eca", "C3k2[5].cv1")),
    "nanodet-plus": (("se", "Conv[12]"), ("simam", "role:n{3,4}")),
    "retinaface": (("se", "Conv[24]"),),
    "fastestdet": (("simam", "Conv[5]"),),
}
"""name of a model -> block and place of each insertion"""
Point = tuple[float, float]


@cache
def outline(name: str) -> Outline:
    """One of the models, with its insertions."""
    source = exported(name)[0] if name in MODELS else export(name, "simplified")
    given = ModelFile.load(source)
    for block, after in CASES[name]:
        given = gsx.insert(given, block, after=after)
    return Outline(SiteFinder(given))


def level(found: Outline, depth: int | None = 1) -> Level:
    """What is drawn of a model."""
    return found._nesting.level(depth)


def drawn_parts(found: Outline, depth: int | None = 1) -> tuple[list[Box], Wires]:
    """The boxes and wires of its picture."""
    return parts(level(found, depth), found.insertions(), {})


def everything(boxes: Sequence[Box]) -> Iterator[Box]:
    """Boxes, and those in them."""
    for box in boxes:
        yield box
        yield from everything([each for each in box.boxes if each.role != PORT])


def _inside(box: Box, low: tuple[float, float], high: tuple[float, float]) -> bool:
    """Whether the rectangle from ``low`` to ``high`` and a box have more than their edges in common."""
    return low[0] < box.right and high[0] > box.x and low[1] < box.bottom and high[1] > box.y


def check(drawing: Drawing) -> None:
    """Nothing overlaps, no line crosses a box, and all lines end where they should."""
    for a, b in combinations(drawing.boxes, 2):
        assert not _inside(a, (b.x, b.y), (b.right, b.bottom)), (a.key, b.key)
    for box in drawing.boxes:
        assert box.x > 0
        assert box.right <= drawing.width
        assert box.y > 0
        assert box.bottom <= drawing.height
        if box.inside is not None:
            assert box.header + box.inside.height <= box.height
            assert box.inside.width <= box.width
            check(box.inside)
    for line in drawing.lines:
        for low, high in stretches(line):
            assert low[0] == high[0] or low[1] == high[1], "lines go straight up, down or across"
            crossed = [box.key for box in drawing.boxes if _inside(box, low, high)]
            assert not crossed, (line.source.key, line.target.key, crossed)
        for point, box in ((line.points[0], line.source), (line.points[-1], line.target)):
            if box.role != PORT:
                assert box.x <= point[0] <= box.right, (line.source.key, line.target.key)
            assert box.y <= point[1] <= box.bottom, (line.source.key, line.target.key)


def stretches(line: Line) -> Iterator[tuple[Point, Point]]:
    """What a line consists of, each from its lower to its higher end."""
    for start, end in pairwise(line.points):
        yield (min(start[0], end[0]), min(start[1], end[1])), (max(start[0], end[0]), max(start[1], end[1]))
