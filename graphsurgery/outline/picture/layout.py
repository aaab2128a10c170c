"""Layout: where the boxes of a picture are.

As detectors are usually drawn: one band for each stride, from the image downwards; columns from left to right, the
backbone first, a new one wherever the neck turns round, the head last. A column that leads up to larger maps is filled
from the bottom. What is in a box stands in one column; what is in a head, in one for each stride.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from .boxes import PORT, Box, Drawing, Line, Wires
from .routing import Margins, route

GAP = 18.0
"""between boxes"""
_PAGE = Margins(left=92.0, top=68.0, right=24.0, band=16.0, gutter=44.0)
_BOX = Margins(left=10.0, top=0.0, right=10.0, band=GAP, gutter=20.0)
_ROLES = ("backbone", "neck", "head")
_ENDS = 0  # the band of what has no stride of its own: inputs


def arrange(boxes: Sequence[Box], wires: Wires) -> Drawing:
    """Give boxes, in the order of the graph, their places, and route the wires between them."""
    lines = _lines(boxes, wires)
    for box in boxes:
        _fill(box)
    strides, upward = _columns(boxes, lines)
    _place_heads(boxes, lines)
    sizes = _stack(boxes, upward, len(strides))
    titles = [f"stride {stride}" if stride else "" for stride in strides]
    return route(boxes, lines, list(zip(titles, sizes, strict=True)), _PAGE)


def _lines(boxes: Sequence[Box], wires: Wires) -> list[Line]:
    by_key = {box.key: box for box in boxes}
    return [Line(by_key[source], by_key[target]) for source, target in dict.fromkeys(wires)]


def _fill(box: Box) -> None:
    """Lay out what is in a box, one below the other, and make the box as large as that."""
    inner = [each for each in box.boxes if each.role != PORT]
    if not inner:
        return
    strides = list(dict.fromkeys(each.stride for each in inner if box.role == "head"))
    for each in inner:
        _fill(each)
        each.column = strides.index(each.stride) if strides else 0
        each.band = 0
    (size,) = _stack(inner, set(), 1)
    box.inside = route(box.boxes, _lines(box.boxes, box.wires), [("", size)], _BOX)
    box.width, box.height = max(box.width, box.inside.width), box.header + box.inside.height


# ---------------------------------------------------------------------- columns and bands


def _columns(boxes: Sequence[Box], lines: Sequence[Line]) -> tuple[list[int], set[tuple[int, int]]]:
    """Put the boxes into columns and bands. The strides from the first band on; the column and band of cells in which
    the way leads upwards.
    """
    _fill_strides(boxes)
    strides = sorted({box.stride or _ENDS for box in boxes})
    after: dict[str, set[str]] = {}
    for line in lines:
        after.setdefault(line.source.key, set()).add(line.target.key)
    rising: set[int] = set()
    aside: dict[tuple[int, int], bool] = {}
    """column and band -> whether nothing is there but branches that lead downwards"""
    column = -1
    for role in _ROLES:
        members = [box for box in boxes if box.column_role == role]
        column += bool(members)
        direction, last = 0, None
        runs = [list(run) for _, run in groupby(members, key=lambda box: box.stride or _ENDS)]
        for run, following in zip(runs, [*runs, []][1:], strict=True):
            stride = run[0].stride or _ENDS
            turn = 0 if last is None or role == "head" else (stride > last) - (stride < last)
            turns = bool(turn and direction and turn != direction)
            branches = bool(turns and following and _is_aside(run, following, after))
            if not branches:
                column += turns
                direction, last = turn or direction, stride
            if direction < 0:
                rising.add(column)
            cell = column, strides.index(stride)
            aside[cell] = aside.get(cell, True) and branches and turn > 0
            for box in run:
                box.column, box.band = cell
    return strides, {cell for cell, is_aside in aside.items() if cell[0] in rising and not is_aside}


def _is_aside(run: Sequence[Box], following: Sequence[Box], after: Mapping[str, set[str]]) -> bool:
    """Whether a run of boxes is a branch from which what follows does not go on: no turn of the way."""
    read = {key for box in run for key in after.get(box.key, ())}
    return read.isdisjoint(box.key for box in following)


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


def _stack(boxes: Iterable[Box], upward: set[tuple[int, int]], bands: int) -> list[float]:
    """Put the boxes of each column and band one below the other, ``y`` from the beginning of the band. How high the
    bands are.
    """
    cells: dict[tuple[int, int], list[Box]] = {}
    for box in boxes:
        cells.setdefault((box.column, box.band), []).append(box)
    sizes = [0.0] * bands
    for (_, band), cell in cells.items():
        sizes[band] = max(sizes[band], sum(box.height + GAP for box in cell) - GAP)
    for (column, band), cell in cells.items():
        y = 0.0
        for box in cell:
            box.y = sizes[band] - y - box.height if (column, band) in upward else y
            y += box.height + GAP
    return sizes
