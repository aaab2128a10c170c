"""Pictures: boxes and labels that do not overlap, lines that can be followed, what is inserted inside of a block."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, pairwise, product
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageFont

import graphsurgery as gsx
from graphsurgery.errors import MissingDependency
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.edges import Edge
from graphsurgery.outline.nesting import Level
from graphsurgery.outline.outline import Outline
from graphsurgery.outline.picture import raster
from graphsurgery.outline.picture.boxes import PORT, Box, Drawing, Line, Wires, parts
from graphsurgery.outline.picture.layout import arrange
from graphsurgery.outline.picture.text import cut, cut_front, width
from graphsurgery.outline.picture.tracks import tracks
from graphsurgery.selection.sites import SiteFinder
from tests.exports import export
from tests.models import model, node, value
from tests.recognition.randomise import randomise
from tests.recognition.roles import exported

SVG = "{http://www.w3.org/2000/svg}"
CASES = {
    "yolov8n": (("simam", "C2f[3]"), ("se", "C2f[5]")),
    "rtdetr-l": (("simam", "HGBlock[4]"), ("se", "RepC3[1]"), ("se", "HGBlock[5]")),
    "yolo11n": (("se", "C3k2[*]"), ("simam", "C3k2[2].m.0"), ("se", "C3k2[3].m.0.m.1"), ("eca", "C3k2[5].cv1")),
    "nanodet-plus": (("se", "Conv[12]"), ("simam", "role:n{3,4}")),
    "retinaface": (("se", "Conv[24]"),),
}
SELECTED = [pytest.param(name, marks=pytest.mark.long if name == "retinaface" else ()) for name in CASES]


@cache
def outline(name: str) -> Outline:
    source = exported(name)[0] if name in ("nanodet-plus", "retinaface") else export(name, "simplified")
    given = ModelFile.load(source)
    for block, after in CASES[name]:
        given = gsx.insert(given, block, after=after)
    return Outline(SiteFinder(given))


def level(found: Outline, depth: int | None = 1) -> Level:
    return found._nesting.level(depth)


def drawn_parts(found: Outline, depth: int | None = 1) -> tuple[list[Box], Wires]:
    return parts(level(found, depth), found.insertions())


def everything(boxes: list[Box]) -> Iterator[Box]:
    for box in boxes:
        yield box
        yield from everything([each for each in box.boxes if each.role != PORT])


# ---------------------------------------------------------------------- geometry


def _inside(box: Box, low: tuple[float, float], high: tuple[float, float]) -> bool:
    """Whether the rectangle from ``low`` to ``high`` and a box have more than their edges in common."""
    return low[0] < box.right and high[0] > box.x and low[1] < box.bottom and high[1] > box.y


def check(drawing: Drawing) -> None:
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


Point = tuple[float, float]


def _lie_on_each_other(a: Point, b: Point, c: Point, d: Point, along: int) -> bool:
    """Whether the stretches from a to b and from c to d run along one axis with no space between them."""
    across = 1 - along
    parallel = a[across] == b[across] and c[across] == d[across]
    return parallel and abs(a[across] - c[across]) < 2 and min(b[along], d[along]) - max(a[along], c[along]) > 2


def stretches(line: Line) -> Iterator[tuple[Point, Point]]:
    for start, end in pairwise(line.points):
        yield (min(start[0], end[0]), min(start[1], end[1])), (max(start[0], end[0]), max(start[1], end[1]))


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


# ---------------------------------------------------------------------- inserted blocks


def test_inserted_blocks_are_between_and_stand_out() -> None:
    root = ElementTree.fromstring(outline("yolov8n").as_svg())
    fills = {}
    for group in root.iter(f"{SVG}g"):
        fills[group.findall(f"{SVG}text")[0].text] = group.findall(f"{SVG}rect")[0].get("fill")
    assert fills["simam"] == fills["se"] == "url(#hatch)", "for print in black and white"
    assert len(root.findall(f"{SVG}defs/{SVG}pattern[@id='hatch']")) == 1
    assert fills["simam"] not in {fill for title, fill in fills.items() if title not in ("simam", "se")}
    drawing = arrange(*drawn_parts(outline("yolov8n")))
    wires = {(line.source.title, line.target.title) for line in drawing.lines}
    assert {
        ("C2f[3]", "simam"),
        ("simam", "SPPF[0]"),
        ("C2f[5]", "se"),
        ("se", "Conv[35]"),
        ("se", "Detect[0]"),
    } <= wires
    assert not {("C2f[3]", "SPPF[0]"), ("C2f[5]", "Detect[0]")} & wires


def around(boxes: Sequence[Box], key: str) -> list[str] | None:
    """The boxes that one lies in, the outermost first."""
    for box in boxes:
        if box.key == key:
            return []
        if (inner := around(box.boxes, key)) is not None:
            return [box.key, *inner]
    return None


INNER = {
    "C3k2[3]": [],
    "C3k2[3].cv1": ["C3k2[3]"],
    "C3k2[3].m.0": ["C3k2[3]"],
    "C3k2[3].m.0.m.1": ["C3k2[3]", "C3k2[3].m.0"],
    "C3k2[3].m.0.m.1.cv1": ["C3k2[3]", "C3k2[3].m.0", "C3k2[3].m.0.m.1"],
    "C3k2[2].cv2": [],  # gives what the block gives
    "tensor:/model.8/Split_output_1": ["C3k2[3]"],  # of a node that is in no part
    "Detect[0].tower.0": ["Detect[0]"],
}
"""selector -> the blocks in whose boxes the insertion behind it is"""


@cache
def with_inner() -> tuple[Outline, dict[str, str]]:
    """yolo11n with a block behind each of INNER, and the id of each."""
    given, ids = ModelFile.load(export("yolo11n", "simplified")), dict[str, str]()
    for after in INNER:
        given = gsx.insert(given, "simam", after=after)
        ids[after] = given.insertions()[-1].id
    return Outline(SiteFinder(given)), ids


@pytest.mark.parametrize("depth", [1, 2, 3, None])
def test_an_insertion_is_in_the_box_of_its_block(depth: int | None) -> None:
    """However few levels are drawn, and each once."""
    found, ids = with_inner()
    boxes, _ = drawn_parts(found, depth)
    keys = [box.key for box in everything(boxes)]
    for after, each in ids.items():
        assert around(boxes, f"inserted {each}") == [f"block {name}" for name in INNER[after]], after
        assert keys.count(f"inserted {each}") == 1
    assert found.as_svg(depth=depth).count('fill="url(#hatch)"') == len(INNER) + 1, "and in the legend"
    check(arrange(*drawn_parts(found, depth)))


@pytest.mark.parametrize("depth", [1, 2, 3, None])
def test_an_insertion_is_among_the_rows(depth: int | None) -> None:
    found, ids = with_inner()
    rows = found.rows(depth)
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    for after, each in ids.items():
        first = next(row for row in rows if each in row.insertions)
        assert first.depth == len(INNER[after]) + 1
        at = names.index(first.name)
        places = [names.index(name) for name in INNER[after]]
        assert places == sorted(places)
        assert all(row.depth > len(INNER[after]) for row in rows[max(places, default=at) + 1 : at + 1])
    if depth is not None:
        parts_ = sum(len(list(block.everything())) - 1 for block in found._tree.blocks)
        shown = sum(row.part is not None for row in rows)
        assert found.hidden(depth) == parts_ - shown


def test_the_ways_in_a_block_go_through_what_is_inserted() -> None:
    inner = level(outline("yolo11n")).inside["C3k2[2]"]
    assert [row.part for row in inner.rows] == ["m.0"]
    (each,) = inner.insertions
    assert set(inner.edges) == {
        Edge(None, "C3k2[2].m.0", ()),
        Edge("C3k2[2].m.0", None, (each,)),
        Edge(None, None, ()),
    }
    inner = level(outline("yolo11n"), 2).inside["C3k2[2]"]
    assert set(inner.edges) == {
        Edge(None, "C3k2[2].cv1", ()),
        Edge("C3k2[2].cv1", "C3k2[2].m.0", ()),
        Edge("C3k2[2].cv1", "C3k2[2].cv2", ()),
        Edge("C3k2[2].m.0", "C3k2[2].cv2", (each,)),
        Edge("C3k2[2].cv2", None, ()),
    }


def test_an_inserted_block_tells_its_shape_and_its_parameters() -> None:
    texts = {box.key: (box.title, *box.text) for box in everything(drawn_parts(outline("yolo11n"))[0])}
    assert texts["inserted model.6.m.0.simam"] == ("simam", "model.6.m.0.simam", "64×40×40", "0 parameters")
    assert texts["inserted model.8.se"] == ("se", "model.8.se", "256×20×20", "8,464 parameters")


# ---------------------------------------------------------------------- levels, folds, titles


@pytest.mark.parametrize("name", ["yolo11n", "rtdetr-l", "nanodet-plus"])
def test_levels_stand_at_their_boxes_and_bands(name: str) -> None:
    found = outline(name)
    tags = {box.tag: box for box in everything(drawn_parts(found)[0]) if box.tag}
    drawing = arrange(*drawn_parts(found))
    for kind in "PN":
        for each in (3, 4, 5):
            assert tags[f"{kind}{each}"].stride == 2**each
            (band,) = [band for band in drawing.bands if f"{kind}{each}" in band.levels]
            assert band.title == f"stride {2**each}"
    for row in found.rows():
        for role in row.roles:
            if role in ("p3", "p4", "p5", "n3", "n4", "n5"):
                stands = [box for box in everything(drawn_parts(found)[0]) if role.upper() in box.tag.split()]
                assert len(stands) == 1
                assert row.tensor in stands[0].tooltip


def test_units_that_no_pattern_knows_stand_as_one_box() -> None:
    """NanoDet-Plus has 113 outermost rows: most are the splits and shuffles of its backbone."""
    whole = level(outline("nanodet-plus"))
    folded = {name: members for name, members in whole.members.items() if "stages" in name}
    assert len(folded) == 13
    assert folded["/backbone/stages.1/stages.1.3"] == (
        *("op:Slice[8]", "op:Slice[9]", "Conv[15]", "DWConv[8]", "Conv[16]", "Concat[6]", "op:Reshape[13]"),
    )
    assert "Conv[12]" in {row.name for row in whole.inside["/backbone/stages.1/stages.1.1"].rows}, "inserted behind it"
    assert len(whole.rows) < 45
    inside = level(outline("nanodet-plus"), 2).inside["/backbone/stages.1/stages.1.3"]
    assert Edge("Concat[6]", "op:Reshape[13]", ()) in inside.edges, "the shuffle between them is looked through"


def test_folds_without_names() -> None:
    found = Outline(SiteFinder(ModelFile.load(randomise(exported("nanodet-plus")[0])[0])))
    boxes, _ = drawn_parts(found)
    named = len(level(outline("nanodet-plus")).rows)
    assert len(level(found).rows) == named
    assert "Slice[0] and 6 more" in {box.title for box in boxes}


def test_a_neck_has_no_column_for_a_branch() -> None:
    """Of NanoDet-Plus, the extra level hangs from the column that leads up."""
    drawing = arrange(*drawn_parts(outline("nanodet-plus")))
    assert [frame.title for frame in drawing.columns] == ["backbone", "neck", "neck", "head"]


def test_a_title() -> None:
    found = outline("yolov8n")
    for text in (found.as_svg(title="<b> & more"), found.as_html(title="<b> & more")):
        assert "&lt;b&gt; &amp; more" in text
        assert "<b>" not in text
        assert found.name not in text
    assert f"<title>{found.name}</title>" in found.as_svg()
    assert "<title></title>" in found.as_svg(title="")


# ---------------------------------------------------------------------- PNG and PDF


def test_a_png_and_a_pdf() -> None:
    found = outline("yolo11n")
    wide, high = (float(ElementTree.fromstring(found.as_svg()).get(side, "")) for side in ("width", "height"))
    image = Image.open(io.BytesIO(found.as_png(title="a <title>")))
    assert image.format == "PNG"
    assert image.size == (pytest.approx(2 * wide, abs=2), pytest.approx(2 * high, abs=2))
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    pink = (pixels == (255, 179, 211)).all(1).sum()
    assert pink > 10_000, "inserted blocks are there"
    page = found.as_pdf()
    assert page.startswith(b"%PDF-")
    assert page.rstrip().endswith(b"%%EOF")
    assert len(page) > 10_000


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_without_the_library(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(name: str) -> None:
        raise error(name)

    monkeypatch.setattr(raster, "import_module", fail)
    with pytest.raises(MissingDependency, match="the extra pictures"):
        outline("yolov8n").as_png()


# ---------------------------------------------------------------------- text


def test_labels() -> None:
    text = outline("rtdetr-l").as_svg()
    root = ElementTree.fromstring(text)
    labels = [element.text for element in root.iter(f"{SVG}text")]
    for label in ("HGBlock[4]", "/model.7 · 1024×40×40", "model.7.simam", "stride 16", "neck", "inserted block"):
        assert label in labels
    tooltips = [element.text or "" for element in root.iter(f"{SVG}title")]
    (told,) = [tooltip for tooltip in tooltips if tooltip.startswith("RepC3[0] ")]
    assert "tensor: /model.16/Add_output_0" in told
    assert "read by: model.17" in told
    assert "a good place" in told


def test_the_same_model_gives_the_same_bytes() -> None:
    path = export("yolov8n", "simplified")
    drawn = {Outline(SiteFinder(ModelFile.load(path))).as_html() for _ in range(2)}
    assert len(drawn) == 1


def test_names_are_escaped() -> None:
    nodes = [
        node("Relu", ["x"], ["</svg><script>&\x1b"], '/a"<b>&/Relu'),
        node("Relu", ["</svg><script>&\x1b"], ["y"], "/c/Relu"),
    ]
    found = Outline(SiteFinder(ModelFile.load(model(nodes, [value("x")], [value("y")]))))
    root = ElementTree.fromstring(found.as_svg())
    assert "<script>" not in found.as_html()
    assert any("</svg><script>&\ufffd" in (element.text or "") for element in root.iter(f"{SVG}title"))


def test_it_needs_nothing_beside_it() -> None:
    for text in (outline("yolov8n").as_svg(), outline("yolov8n").as_html()):
        without = text.replace("http://www.w3.org/2000/svg", "")
        assert "http" not in without
        assert "<script" not in without
        assert "@import" not in without
    assert outline("yolov8n").as_html().startswith("<!DOCTYPE html>")
