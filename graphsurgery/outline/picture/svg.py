"""SVG: the drawing as text that needs no other file, and an HTML page around it.

The same model gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .layout import BOX, Box, Drawing, Line, arrange

if TYPE_CHECKING:
    from ...modelfile.record import Insertion
    from ..edges import Edge
    from ..rows import Row

_COLOURS = {  # fill and stroke
    "backbone": ("#e3eefc", "#2f6db5"),
    "neck": ("#e4f5e6", "#2e8b45"),
    "head": ("#fdf1d8", "#b57b12"),
    "inserted": ("#ff2e88", "#8f0044"),
    "end": ("#f2f2f2", "#666666"),
}
_NAMES = {"inserted": "inserted block", "end": "input or output"}
_FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""
_BOLD = 'text-anchor="middle" font-weight="600"'
_TITLE_WIDTH, _TEXT_WIDTH = 26, 33  # characters that fit in a box
_RADIUS = 7.0
_LEGEND = 44.0


def draw(name: str, rows: Sequence[Row], edges: Sequence[Edge], insertions: Mapping[str, Insertion]) -> str:
    """The block-level graph of the model ``name``; ``insertions`` by id."""
    drawing = arrange(*parts(rows, edges, insertions))
    return "".join(f"{line}\n" for line in _elements(drawing, name))


def page(name: str, picture: str) -> str:
    """A page that shows an SVG picture."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{_text(name)}</title>\n"
        "<style>body { margin: 0; background: #ffffff; } svg { display: block; margin: auto; } "
        "g.box:hover rect { stroke-width: 3.5; }</style>\n</head>\n<body>\n"
        f"{picture}</body>\n</html>\n"
    )


# ---------------------------------------------------------------------- what is drawn


def parts(
    rows: Sequence[Row], edges: Sequence[Edge], insertions: Mapping[str, Insertion]
) -> tuple[list[Box], list[tuple[str, str]]]:
    """The boxes, and the wires between them as pairs of keys."""
    boxes: list[Box] = []
    if any(edge.source is None for edge in edges):
        first = rows[0].role if rows else None
        boxes.append(Box("input", "end", first or "backbone", 1, "input", "", "input of the model"))
    for row in rows:
        boxes.append(_row_box(row))
        boxes += [_inserted_box(insertions[each], row) for each in row.insertions if each in insertions]
    known = {box.key for box in boxes}
    stray = [each for edge in edges for each in edge.through if f"inserted {each}" not in known]
    boxes += [_inserted_box(insertions[each], None) for each in dict.fromkeys(stray)]
    if any(edge.target is None for edge in edges):
        last = rows[-1] if rows else None
        role = (last.role if last else None) or "backbone"
        boxes.append(Box("output", "end", role, None, "output", "", "output of the model"))
    wires: list[tuple[str, str]] = []
    for edge in edges:
        source = f"block {edge.source}" if edge.source else "input"
        target = f"block {edge.target}" if edge.target else "output"
        way = [source, *(f"inserted {each}" for each in edge.through), target]
        wires += pairwise(way)
    return boxes, wires


def _row_box(row: Row) -> Box:
    size = "×".join(str(d) if d is not None else "?" for d in row.shape[1:]) if row.shape else ""
    text = " · ".join(part for part in (row.path or "recovered", size) if part)
    advice = "a good place for a block" if row.is_advisable else row.objection.sentence if row.objection else ""
    tooltip = [
        f"{row.name} ({row.role})" if row.role else row.name,
        *([", ".join(row.roles)] if row.roles else []),
        f"tensor: {row.tensor}",
        f"read by: {', '.join(row.readers)}",
        f"behind it: {advice}",
    ]
    name = row.name.removeprefix("op:")
    role = row.role or "backbone"
    return Box(f"block {row.name}", role, role, row.stride, name, text, "\n".join(tooltip))


def _inserted_box(insertion: Insertion, row: Row | None) -> Box:
    tooltip = (
        f"{insertion.id}: {insertion.module}, {insertion.parameters:,} parameters\ntensor: {insertion.output_tensor}"
    )
    role, stride = (row.role or "backbone", row.stride) if row else ("backbone", insertion.site.stride)
    return Box(f"inserted {insertion.id}", "inserted", role, stride, insertion.module, insertion.id, tooltip)


# ---------------------------------------------------------------------- how it is written


def _elements(drawing: Drawing, name: str) -> Iterator[str]:
    width, height = max(drawing.width, 560.0), drawing.height + _LEGEND
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
        f'viewBox="0 0 {_n(width)} {_n(height)}" {_FONT} font-size="12">'
    )
    yield f"<title>{_text(name)}</title>"
    yield f'<rect width="{_n(width)}" height="{_n(height)}" fill="#ffffff"/>'
    yield _label(16, 26, 'font-size="16" font-weight="600" fill="#222222"', _cut(name, 80))
    for i, band in enumerate(drawing.bands):
        fill = "#f6f7f9" if i % 2 == 0 else "#eceff3"
        size = f'width="{_n(width - 16)}" height="{_n(band.size)}"'
        yield f'<rect x="8" y="{_n(band.start)}" {size} rx="6" fill="{fill}"/>'
        yield _label(16, band.start + 20, 'fill="#555555"', band.title)
    for column in drawing.columns:
        colour = _COLOURS.get(column.title, _COLOURS["end"])[1]
        yield _label(column.start + column.size / 2, 52, f'{_BOLD} fill="{colour}"', column.title)
    for line in drawing.lines:
        yield from _line(line)
    for box in drawing.boxes:
        yield from _box(box)
    yield from _legend(drawing, height - _LEGEND / 2)
    yield "</svg>"


def _line(line: Line) -> Iterator[str]:
    inserted = "inserted" in (line.source.role, line.target.role)
    colour = _COLOURS["inserted" if inserted else line.source.role][1]
    yield f'<path d="{_rounded(line.points)}" fill="none" stroke="{colour}" stroke-width="{2.2 if inserted else 1.5}"/>'
    (x0, y0), (x, y) = line.points[-2:]
    along, across = ((x > x0) - (x < x0), (y > y0) - (y < y0))
    corners = [(x, y), *((x - 8 * along + s * across, y - 8 * across + s * along) for s in (-4, 4))]
    yield f'<polygon points="{" ".join(f"{_n(a)},{_n(b)}" for a, b in corners)}" fill="{colour}"/>'


def _rounded(points: Sequence[tuple[float, float]]) -> str:
    """A path with its corners rounded."""
    steps = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for (x0, y0), (x, y), (x1, y1) in zip(points, points[1:], points[2:], strict=False):
        before, after = abs(x - x0) + abs(y - y0), abs(x1 - x) + abs(y1 - y)
        radius = min(_RADIUS, before / 2, after / 2)
        if not radius:
            continue
        enter = (x - radius * (x - x0) / before, y - radius * (y - y0) / before)
        leave = (x + radius * (x1 - x) / after, y + radius * (y1 - y) / after)
        steps.append(f"L{_n(enter[0])} {_n(enter[1])}Q{_n(x)} {_n(y)} {_n(leave[0])} {_n(leave[1])}")
    steps.append(f"L{_n(points[-1][0])} {_n(points[-1][1])}")
    return "".join(steps)


def _box(box: Box) -> Iterator[str]:
    fill, stroke = _COLOURS[box.role]
    ink = "#ffffff" if box.role == "inserted" else "#1b1b1b"
    middle, thick = box.x + BOX[0] / 2, 2.5 if box.role == "inserted" else 1.2
    yield f'<g class="box"><title>{_text(box.tooltip)}</title>'
    yield (
        f'<rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(BOX[0])}" height="{_n(BOX[1])}" rx="6" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="{thick}"/>'
    )
    height = 18 if box.text else 27
    yield _label(middle, box.y + height, f'{_BOLD} fill="{ink}"', _cut(box.title, _TITLE_WIDTH))
    if box.text:
        style = f'text-anchor="middle" font-size="11" fill="{ink}"'
        yield _label(middle, box.y + 35, style, _cut_front(box.text, _TEXT_WIDTH))
    yield "</g>"


def _legend(drawing: Drawing, y: float) -> Iterator[str]:
    x = 16.0
    for role, (fill, stroke) in _COLOURS.items():
        if not any(box.role == role for box in drawing.boxes):
            continue
        yield f'<rect x="{_n(x)}" y="{_n(y - 8)}" width="16" height="16" rx="3" fill="{fill}" stroke="{stroke}"/>'
        label = _NAMES.get(role, role)
        yield _label(x + 22, y + 4, 'fill="#333333"', label)
        x += 40 + 7 * len(label)


def _label(x: float, y: float, style: str, text: str) -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" {style}>{_text(text)}</text>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _cut_front(text: str, most: int) -> str:
    """The end of a long text: the end of a path and the size after it say more than its beginning."""
    return text if len(text) <= most else "…" + text[1 - most :]


def _text(text: str) -> str:
    """Text from a file as text of XML: without the characters that XML does not know."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return escape(text)


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
