"""SVG: the drawing as text that needs no other file, and an HTML page around it.

The same model gives the same bytes. Inserted blocks are pink and hatched, so that they stand out in print without
colours, too; rewritten ones are hatched both ways, and found ones have a dashed border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .boxes import LINE, PAD, PORT, Box, Drawing, Line, parts
from .layout import arrange
from .text import cut, cut_front, width, written

if TYPE_CHECKING:
    from ...modelfile.record import Insertion
    from ..nesting import Level

_COLOURS = {  # fill, and stroke and text on it
    "backbone": ("#e3eefc", "#1f5fa8"),
    "neck": ("#e4f5e6", "#1d7a36"),
    "head": ("#fdf1d8", "#8a5a00"),
    "inserted": ("#ffb3d3", "#b0005a"),
    "rewritten": ("#ffb3d3", "#b0005a"),
    "found": ("#fff0f7", "#b0005a"),
    "end": ("#f2f2f2", "#555555"),
    "layer": ("#e3eefc", "#1f5fa8"),
    "operator": ("#ffffff", "#555555"),
}
_NAMES = {
    "inserted": "inserted block",
    "rewritten": "rewritten block",
    "found": "found attention",
    "end": "input or output",
}
_INK = "#1b1b1b"
FONT = "font-family=\"'DejaVu Sans', Verdana, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""
_BOLD = 'font-weight="600"'
_MIDDLE = 'text-anchor="middle"'
TITLE, _TEXT, _TAG, _NAME = 13.5, 12.0, 11.0, 17.0
"""sizes of the fonts: titles of boxes, the lines below them, levels, and the name of the picture"""
_BESIDE = 8.0
"""what is free beside the text in a box"""
_RADIUS = 7.0
_DASHES = ' stroke-dasharray="6 4"'
"""of the border of what was found"""
_LEGEND = 44.0
_HATCHED = {"inserted": "hatch", "rewritten": "cross-hatch"}
"""role -> the pattern that its boxes are filled with"""
_HATCH = (
    '<defs><pattern id="hatch" width="9" height="9" patternUnits="userSpaceOnUse">'
    f'<rect width="9" height="9" fill="{_COLOURS["inserted"][0]}"/>'
    f'<path d="M-2 2L2 -2M0 9L9 0M7 11L11 7" stroke="{_COLOURS["inserted"][1]}" stroke-width="1.8"/></pattern></defs>'
)
_CROSS_HATCH = (
    '<defs><pattern id="cross-hatch" width="9" height="9" patternUnits="userSpaceOnUse">'
    f'<rect width="9" height="9" fill="{_COLOURS["rewritten"][0]}"/>'
    f'<path d="M0 0L9 9M0 9L9 0" stroke="{_COLOURS["rewritten"][1]}" stroke-width="1.2"/></pattern></defs>'
)


def draw(title: str, level: Level, insertions: Mapping[str, Insertion], marks: Mapping[str, str]) -> str:
    """The graph of the blocks of a model; ``insertions`` by id, ``marks`` by tensor."""
    drawing = arrange(*parts(level, insertions, marks))
    return "".join(f"{line}\n" for line in _elements(drawing, title))


def plain_graph(title: str, drawing: Drawing) -> str:
    """Boxes and lines alone, without bands, columns and a legend."""
    wide, high = _n(drawing.width), _n(drawing.height)
    start = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
    lines = (f'{start}{FONT} font-size="{_n(_TEXT)}">', f"<title>{written(title)}</title>", *_graph(drawing), "</svg>")
    return "".join(f"{line}\n" for line in lines)


def page(title: str, picture: str) -> str:
    """A page that shows an SVG picture."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{written(title)}</title>\n"
        "<style>body { margin: 0; background: #ffffff; } svg { display: block; margin: auto; } "
        "g.box:hover rect { stroke-width: 3; }</style>\n</head>\n<body>\n"
        f"{picture}</body>\n</html>\n"
    )


def _elements(drawing: Drawing, title: str) -> Iterator[str]:
    wide, high = max(drawing.width, 560.0), drawing.height + _LEGEND
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(wide)}" height="{_n(high)}" '
        f'viewBox="0 0 {_n(wide)} {_n(high)}" {FONT} font-size="{_n(_TEXT)}">'
    )
    yield f"<title>{written(title)}</title>"
    roles = set(_roles(drawing.boxes))
    if "inserted" in roles:
        yield _HATCH
    if "rewritten" in roles:
        yield _CROSS_HATCH
    yield f'<rect width="{_n(wide)}" height="{_n(high)}" fill="#ffffff"/>'
    name = cut(title, wide - 32, _NAME, bold=True)
    yield _label(16, 28, f'font-size="{_n(_NAME)}" {_BOLD} fill="{_INK}"', name)
    for i, band in enumerate(drawing.bands):
        fill = "#f6f7f9" if i % 2 == 0 else "#e9ecf1"
        size = f'width="{_n(wide - 16)}" height="{_n(band.size)}"'
        yield f'<rect x="8" y="{_n(band.start)}" {size} rx="6" fill="{fill}"/>'
        yield _label(16, band.start + 20, 'fill="#444444"', band.title)
        for j, each in enumerate(band.levels):
            yield _label(16, band.start + 38 + 17 * j, f'{_BOLD} fill="{_INK}"', each)
    for column in drawing.columns:
        colour = _COLOURS.get(column.title, _COLOURS["end"])[1]
        style = f'{_MIDDLE} {_BOLD} font-size="{_n(TITLE)}" fill="{colour}"'
        yield _label(column.start + column.size / 2, 56, style, column.title)
    yield from _graph(drawing)
    yield from _legend(roles, high - _LEGEND / 2)
    yield "</svg>"


def _roles(boxes: Sequence[Box]) -> Iterator[str]:
    for box in boxes:
        yield box.role
        yield from _roles(box.boxes)


def _graph(drawing: Drawing) -> Iterator[str]:
    for line in drawing.lines:
        yield from _line(line)
    for box in drawing.boxes:
        yield from _box(box)


def _line(line: Line) -> Iterator[str]:
    inserted = "inserted" in (line.source.role, line.target.role)
    role = line.source.column_role if line.source.role == PORT else line.source.role
    colour = _COLOURS["inserted" if inserted else role][1]
    yield f'<path d="{_rounded(line.points)}" fill="none" stroke="{colour}" stroke-width="{2.4 if inserted else 1.6}"/>'
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


# ---------------------------------------------------------------------- boxes


def _box(box: Box) -> Iterator[str]:
    fill, stroke = _filled(box.role), _COLOURS[box.role][1]
    marked = box.role in _HATCHED or box.role == "found"
    yield f'<g class="box"><title>{written(box.tooltip)}</title>'
    size = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}"'
    if box.inside is not None:
        fill = "#ffffff"
    yield (
        f'<rect {size} rx="6" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="{2.6 if marked else 1.3}"{_DASHES if box.role == "found" else ""}/>'
    )
    yield from _texts(box)
    yield "</g>"
    if box.inside is not None:
        y = box.y + box.header
        yield f'<path d="M{_n(box.x)} {_n(y)}H{_n(box.right)}" stroke="{stroke}" stroke-width="1.3"/>'
        yield f'<g transform="translate({_n(box.x)} {_n(y)})">'
        yield from _graph(box.inside)
        yield "</g>"


def _texts(box: Box) -> Iterator[str]:
    """The title of a box, the lines below it, the level that it gives, and the mark on it."""
    stroke = _COLOURS[box.role][1]
    room = box.width - 2 * _BESIDE
    title = cut(box.title, room, TITLE, bold=True)
    texts = [cut_front(text, room, _TEXT) for text in box.text]
    if box.role in _HATCHED:  # text on hatching cannot be read
        plate = max(width(title, TITLE, bold=True), *(width(text, _TEXT) for text in texts)) + _BESIDE
        x, y, high = box.center - plate / 2, box.y + PAD / 2 - 1, box.height - PAD + 2
        yield f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(plate)}" height="{_n(high)}" rx="4" fill="#ffffff"/>'
    first = box.y + (box.header - LINE * len(texts)) / 2 + TITLE * 0.36
    yield _label(box.center, first, f'{_MIDDLE} {_BOLD} font-size="{_n(TITLE)}" fill="{_INK}"', title)
    for i, text in enumerate(texts):
        yield _label(box.center, first + LINE * (i + 1), f'{_MIDDLE} fill="{_INK}"', text)
    if box.tag:
        wide = _plate_width(box.tag)
        yield from _plate(box.right - _BESIDE - wide, box.y, wide, box.tag, "#ffffff", stroke)
    if box.mark:
        mark = cut(box.mark, room, _TAG, bold=True)
        yield from _plate(box.x + _BESIDE, box.y, _plate_width(mark), mark, *_COLOURS["inserted"])


def _plate_width(text: str) -> float:
    return width(text, _TAG, bold=True) + _BESIDE


def _plate(x: float, y: float, wide: float, text: str, fill: str, stroke: str) -> Iterator[str]:
    """A text on the border of a box, where no line is."""
    yield (f'<rect x="{_n(x)}" y="{_n(y - 9)}" width="{_n(wide)}" height="15" rx="4" fill="{fill}" stroke="{stroke}"/>')
    yield _label(x + wide / 2, y + 2.5, f'{_MIDDLE} {_BOLD} font-size="{_n(_TAG)}" fill="{_INK}"', text)


def _legend(roles: set[str], y: float) -> Iterator[str]:
    x = 16.0
    for role, (_, stroke) in _COLOURS.items():
        if role not in roles:
            continue
        box = f'x="{_n(x)}" y="{_n(y - 8)}" width="16" height="16" rx="3"'
        yield f'<rect {box} fill="{_filled(role)}" stroke="{stroke}"{_DASHES if role == "found" else ""}/>'
        label = _NAMES.get(role, role)
        yield _label(x + 22, y + 4, f'fill="{_INK}"', label)
        x += 44 + width(label, _TEXT)


def _filled(role: str) -> str:
    return f"url(#{_HATCHED[role]})" if role in _HATCHED else _COLOURS[role][0]


def _label(x: float, y: float, style: str, text: str) -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" {style}>{written(text)}</text>'


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
