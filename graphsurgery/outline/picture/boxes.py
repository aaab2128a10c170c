"""Boxes: what a picture consists of, made of the rows of an outline. Where it is, the layout decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from ..rows import LEVEL
from ..standing import FOUND, REWRITTEN

if TYPE_CHECKING:
    from ...feature_map import Dimension
    from ...modelfile.record import Insertion
    from ..nesting import Level
    from ..rows import Row
    from ..standing import StandingBlock

WIDTH, LINE, PAD = 190.0, 16.0, 13.0
"""of a box: its width, the height of a line of text, and what is above and below the lines together"""
PORT = "port"
"""the role of what stands for the inputs, or the output, of a box in that box"""

Wires = Sequence[tuple[str, str]]
"""pairs of keys of boxes"""


@dataclass(eq=False)
class Box:
    """One block, inserted block, input or output."""

    key: str
    role: str
    """backbone, neck, head, inserted, rewritten, found, port, or end for inputs and outputs of the model"""
    column_role: str
    stride: int | None
    title: str
    text: tuple[str, ...] = ()
    """lines below the title: a path, a size"""
    tooltip: str = ""
    tag: str = ""
    """the level of the pyramid that it gives: P4"""
    tensor: str = ""
    """what leaves it, where it is a row of the outline"""
    mark: str = ""
    """what the caller writes on it"""
    boxes: Sequence[Box] = ()
    """what is in it"""
    wires: Wires = ()
    inside: Drawing | None = None
    """the same, laid out; its places count from the corner of the box"""
    x: float = 0.0
    y: float = 0.0
    width: float = WIDTH
    height: float = 0.0
    column: int = 0
    band: int = 0

    def __post_init__(self) -> None:
        self.height = self.header

    @property
    def header(self) -> float:
        """The height of its text."""
        return 0.0 if self.role == PORT else PAD + LINE * max(1 + len(self.text), 2)

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Where it ends."""
        return self.y + self.height

    @property
    def center(self) -> float:
        """Half way across."""
        return self.x + self.width / 2

    @property
    def exit(self) -> float:
        """The height at which lines leave its side: its middle, or near the end of what is in it."""
        return self.y + self.height / 2 if self.inside is None else self.bottom - PAD

    def entry(self, share: float) -> float:
        """The height at which a line enters its side: at a share of its text."""
        return self.y + self.header * share


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
    levels: tuple[str, ...] = ()
    """the tags of the boxes in a band: P4, N4"""


@dataclass(frozen=True)
class Drawing:
    """Everything that is to be drawn, in pixels."""

    width: float
    height: float
    boxes: Sequence[Box]
    lines: Sequence[Line]
    bands: Sequence[Frame]
    columns: Sequence[Frame]


# ---------------------------------------------------------------------- of the rows of an outline


def parts(level: Level, insertions: Mapping[str, Insertion], marks: Mapping[str, str]) -> tuple[list[Box], Wires]:
    """The boxes of a model, and the wires between them. ``insertions`` by id, ``marks`` by tensor."""
    boxes = list(_between(level, insertions))
    _mark(boxes, marks)
    if any(edge.source is None for edge in level.edges):
        role = (level.rows[0].role if level.rows else None) or "backbone"
        boxes.insert(0, Box("input", "end", role, 1, "input", tooltip="input of the model"))
    if any(edge.target is None for edge in level.edges):
        role = (level.rows[-1].role if level.rows else None) or "backbone"
        boxes.append(Box("output", "end", role, None, "output", tooltip="output of the model"))
    return boxes, _wires(level)


def _mark(boxes: Sequence[Box], marks: Mapping[str, str]) -> None:
    for box in boxes:
        box.mark = marks.get(box.tensor, "")
        _mark(box.boxes, marks)


def _between(level: Level, insertions: Mapping[str, Insertion], whole: Row | None = None) -> Iterator[Box]:
    """The boxes of one level, each inserted block after the row that it stands behind."""
    waiting = dict.fromkeys(level.insertions)
    for edge in level.edges:
        if edge.source is None:  # behind something that has no row
            for each in edge.through:
                yield _inserted_box(insertions[each], whole)
                waiting.pop(each, None)
    for row in level.rows:
        yield _row_box(row, level, insertions, nested=whole is not None)
        read = [each for edge in level.edges if edge.source == row.name for each in edge.through]
        for each in dict.fromkeys([*row.insertions, *read]):
            if each in waiting:
                del waiting[each]
                yield _inserted_box(insertions[each], row)
    for each in waiting:
        yield _inserted_box(insertions[each], whole)


def _wires(level: Level) -> Wires:
    wires: list[tuple[str, str]] = []
    for edge in level.edges:
        source = f"block {edge.source}" if edge.source else "input"
        target = f"block {edge.target}" if edge.target else "output"
        wires += pairwise([source, *(f"inserted {each}" for each in edge.through), target])
    return list(dict.fromkeys(wires))


def _row_box(row: Row, level: Level, insertions: Mapping[str, Insertion], *, nested: bool) -> Box:
    members = level.members.get(row.name, ())
    advice = "a good place for a block" if row.is_advisable else row.objection.sentence if row.objection else ""
    tooltip = [
        f"{row.name} ({row.role})" if row.role else row.name,
        *([", ".join(row.roles)] if row.roles else []),
        *([f"stands for: {', '.join(members)}"] if members else []),
        f"tensor: {row.tensor}",
        f"read by: {', '.join(row.readers)}",
        f"behind it: {advice}",
    ]
    title, place = row.title, row.path or "recovered"
    if members:
        title, place = row.name.rpartition("/")[2], f"{len(members)} parts"
    elif nested and row.part:
        title = f"{row.part} ({row.type})"
    role = row.role or "backbone"
    levels = dict.fromkeys(each.upper() for each in row.roles if LEVEL.fullmatch(each))
    box = Box(
        f"block {row.name}",
        role,
        role,
        row.stride,
        title,
        (" · ".join(filter(None, (place, _size(row.shape)))),),
        "\n".join(tooltip),
        "" if nested else " ".join(levels),
        row.tensor,
    )
    if row.standing is not None:
        return _standing_box(box, row.standing)
    if inner := level.inside.get(row.name):
        ends = Box("input", PORT, role, row.stride, ""), Box("output", PORT, role, row.stride, "")
        box.boxes = [ends[0], *_between(inner, insertions, row), ends[1]]
        box.wires = _wires(inner)
    return box


def _standing_box(box: Box, standing: StandingBlock) -> Box:
    """The box of a block that was found, or stands in the place of something."""
    parameters = f"{standing.parameters:,} parameters" if standing.parameters is not None else ""
    about = ", ".join(filter(None, (standing.module or "attention", parameters, standing.said)))
    role = "found" if standing.origin == FOUND else "rewritten" if standing.origin == REWRITTEN else "inserted"
    return replace(
        box,
        role=role,
        title=standing.module or "attention",
        text=(standing.id, _size(standing.shape), standing.said),
        tooltip=f"{standing.id}: {about}\n{box.tooltip}",
    )


def _inserted_box(insertion: Insertion, row: Row | None) -> Box:
    """An inserted block, beside the row that it stands behind."""
    parameters = f"{insertion.parameters:,} parameter{'' if insertion.parameters == 1 else 's'}"
    about = ", ".join(filter(None, (insertion.module, parameters, insertion.origin)))
    tooltip = f"{insertion.id}: {about}\ntensor: {insertion.output_tensor}"
    role, stride = (row.role or "backbone", row.stride) if row else ("backbone", insertion.site.stride)
    text = (insertion.id, _size(insertion.site.shape), insertion.origin or parameters)
    return Box(f"inserted {insertion.id}", "inserted", role, stride, insertion.module, text, tooltip)


def _size(shape: Sequence[Dimension] | None) -> str:
    return "×".join(map(_dimension, shape[1:])) if shape else ""


def _dimension(size: Dimension) -> str:
    return str(size) if size is not None else "?"
