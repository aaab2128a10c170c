"""Where things are in pictures: nothing overlaps, and lines can be followed."""

from __future__ import annotations

import random
from itertools import combinations, product
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import ImageFont

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.outline import Outline
from graphsurgery.outline.picture.boxes import PORT, Box, Drawing
from graphsurgery.outline.picture.layout import arrange
from graphsurgery.outline.picture.text import cut, cut_front, width
from graphsurgery.outline.picture.tracks import tracks
from graphsurgery.selection.sites import SiteFinder
from tests.models import model, node, value
from tests.pictures import CASES, SVG, Point, check, drawn_parts, outline, stretches

SELECTED = [pytest.param(name, marks=pytest.mark.long if name == "retinaface" else ()) for name in CASES]


def check_that_lines_can_be_followed(drawing: Drawing) -> None:
    """Lines lie on each other only where they come from one box."""
    for box in drawing.boxes:
        if box.inside is not None:
            check_that_lines_can_be_followed(box.inside)
    for one, other in combinations(drawing.lines, 2):
        if one.source is not other.source:
            for s, t in product(stretches(one), stretches(other)):
                keys = [(line.source.key, line.target.key) for line in (one, other)]
                assert not any(_lie_on_each_other(*s, *t, along) for along in (0, 1)), (keys, s, t)


def _lie_on_each_other(a: Point, b: Point, c: Point, d: Point, along: int) -> bool:
    """Whether the stretches from a to b and from c to d run along one axis with no space between them."""
    across = 1 - along
    parallel = a[across] == b[across] and c[across] == d[across]
    return parallel and abs(a[across] - c[across]) < 2 and min(b[along], d[along]) - max(a[along], c[along]) > 2


Rectangle = tuple[float, float, float, float]


def labels(text: str) -> list[tuple[str, Rectangle]]:
    """Every text of a picture, and where it is: left, top, right, bottom."""
    found: list[tuple[str, Rectangle]] = []

    def visit(element: ElementTree.Element, x: float, y: float) -> None:
        if moved := element.get("transform"):
            dx, dy = map(float, moved.removeprefix("translate(").removesuffix(")").split())
            x, y = x + dx, y + dy
        if element.tag == f"{SVG}text" and element.text:
            size = float(element.get("font-size", "12"))
            wide = width(element.text, size, bold=element.get("font-weight") == "600")
            left = x + float(element.get("x", "")) - {"middle": wide / 2}.get(element.get("text-anchor", ""), 0.0)
            base = y + float(element.get("y", ""))
            found.append((element.text, (left, base - 0.76 * size, left + wide, base + 0.24 * size)))
        for inner in element:
            visit(inner, x, y)

    visit(ElementTree.fromstring(text), 0.0, 0.0)
    return found


def overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("depth", [1, 2, None])
@pytest.mark.parametrize("name", SELECTED)
def test_nothing_overlaps(name: str, depth: int | None) -> None:
    drawing = arrange(*drawn_parts(outline(name), depth))
    check(drawing)
    check_that_lines_can_be_followed(drawing)
    written = labels(outline(name).as_svg(depth=depth))
    for (one, a), (other, b) in combinations(written, 2):
        assert not overlap(a, b), (one, other)
    for text, (left, top, right, bottom) in written:
        assert left > 0, text
        assert right < max(drawing.width, 560), text
        assert top > 0, text
        assert bottom < drawing.height + 60, text


@pytest.mark.parametrize("name", ["yolov8n", "rtdetr-l", "nanodet-plus"])
def test_whole_blocks_fit_a_screen_and_a_sheet(name: str) -> None:
    drawing = arrange(*drawn_parts(outline(name)))
    assert drawing.width <= 1440, "as it is on a usual screen"
    scale = min(190 / drawing.width, 277 / drawing.height)  # millimetres of A4 for each pixel
    assert 12 * scale * 72 / 25.4 > 5, "the smallest text in points"


def test_the_widths_are_those_of_a_wide_font() -> None:
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for text in ("C3k2[2]", "/model.22 · 1024×160×160", "132,160 parameters", "GhostBottleneck[1]", "model.6.simam"):
        for bold, file in ((False, "DejaVuSans.ttf"), (True, "DejaVuSans-Bold.ttf")):
            real = ImageFont.truetype(str(fonts / file), 100).getlength(text)
            assert 0.97 * real < width(text, 100, bold=bold) < 1.15 * real, text


def test_text_is_cut_to_fit() -> None:
    path = "/backbone/stages.0/stages.0.0 · 16×16×16"
    assert cut_front(path, 400, 12) == path
    assert cut_front(path, 165, 12) == "…/stages.0.0 · 16×16×16"
    assert cut("GhostBottleneck", 60, 12, bold=True) == "Ghost…"
    for room in range(20, 300, 7):
        for text in (cut(path, room, 12), cut_front(path, room, 12)):
            assert width(text, 12) <= room
    assert len(cut("a" * 1_000_000, 100, 12)) < 20


@pytest.mark.parametrize("seed", range(20))
def test_nothing_overlaps_in_graphs_of_any_kind(seed: int) -> None:
    rng = random.Random(seed)
    known = ("backbone", "neck", "head")[: 2 + seed % 2]
    roles = sorted((rng.choice(known) for _ in range(25)), key=known.index)
    boxes = [Box(str(i), r, r, rng.choice((None, 2, 4, 8, 16)), str(i)) for i, r in enumerate(roles)]
    for box in rng.sample(boxes, 6):
        inner = [Box(f"i{i}", box.role, box.role, rng.choice((8, 16)), str(i)) for i in range(rng.randint(1, 6))]
        ends = Box("input", PORT, box.role, 8, ""), Box("output", PORT, box.role, 8, "")
        box.boxes = [ends[0], *inner, ends[1]]
        box.wires = [(a.key, b.key) for a, b in combinations(box.boxes, 2) if rng.random() < 0.5]
    wires = [(str(a), str(b)) for a, b in combinations(range(25), 2) if rng.random() < 0.12]
    if seed % 2:
        wires += [(b, a) for a, b in wires if roles[int(b)] != "head"][:3]  # nothing leads back from a head
    drawing = arrange(boxes, wires)
    check(drawing)
    if not seed % 2:
        check_that_lines_can_be_followed(drawing)


@pytest.mark.parametrize("seed", range(5))
def test_a_stretch_takes_the_first_free_track(seed: int) -> None:
    rng = random.Random(seed)
    stretches = [tuple(sorted((rng.randint(0, 200) / 2, rng.randint(0, 200) / 2))) for _ in range(120)]
    told = tracks(stretches)
    taken: dict[int, list[tuple[float, float]]] = {}
    for i in sorted(range(120), key=lambda i: stretches[i][1] - stretches[i][0]):
        low, high = stretches[i]
        meets = [t for t, spans in taken.items() if any(a - 4 <= high and low <= b + 4 for a, b in spans)]
        assert told[i] == min(set(range(121)) - set(meets))
        taken.setdefault(told[i], []).append((low, high))


@pytest.mark.parametrize("shape", ["all into one", "one into all", "shortcuts"])
def test_thousands_of_lines_are_drawn(shape: str) -> None:
    """Without holding each against all others."""
    count = 10_000
    boxes = [Box(str(i), "backbone", "backbone", 8, str(i)) for i in range(count)]
    wires = {
        "all into one": [(str(i), str(count - 1)) for i in range(count - 1)],
        "one into all": [("0", str(i)) for i in range(1, count)],
        "shortcuts": [(str(i), str(j)) for i in range(count) for j in range(i + 2, min(i + 5, count))],
    }
    assert len(arrange(boxes, wires[shape]).lines) == len(wires[shape])


def test_neck_turns_round_in_columns_of_its_own() -> None:
    boxes = {box.title: box for box in arrange(*drawn_parts(outline("yolov8n"))).boxes}
    column = {title: box.column for title, box in boxes.items()}
    assert column["Conv[0]"] == column["SPPF[0]"] == 0
    assert column["Upsample[0]"] == column["C2f[5]"] == 1
    assert column["Conv[35]"] == column["C2f[7]"] == 2
    assert column["Detect[0]"] == 3
    assert boxes["Concat[0]"].y > boxes["C2f[4]"].y > boxes["C2f[5]"].y, "up to the larger maps"
    assert boxes["Concat[2]"].y < boxes["C2f[6]"].y < boxes["C2f[7]"].y, "and down again"
    assert boxes["C2f[2]"].band == boxes["C2f[6]"].band, "one band a stride"


def test_a_neck_has_no_column_for_a_branch() -> None:
    """Of NanoDet-Plus, the extra level hangs from the column that leads up."""
    drawing = arrange(*drawn_parts(outline("nanodet-plus")))
    assert [frame.title for frame in drawing.columns] == ["backbone", "neck", "neck", "head"]


def test_a_network_of_one_role_has_one_column() -> None:
    nodes = [node("Relu", ["x"], ["a"], "/a/Relu"), node("Relu", ["a"], ["y"], "/b/Relu")]
    found = Outline(SiteFinder(ModelFile.load(model(nodes, [value("x")], [value("y")]))))
    assert [frame.title for frame in arrange(*drawn_parts(found)).columns] == ["backbone"]
