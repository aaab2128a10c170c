"""Pictures: boxes that do not overlap, lines that run where no box is, text that is safe."""

from __future__ import annotations

import random
from functools import cache
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.outline import Outline
from graphsurgery.outline.picture.layout import BOX, Box, Drawing, arrange
from graphsurgery.outline.picture.svg import parts
from graphsurgery.outline.picture.tracks import tracks
from graphsurgery.selection.sites import SiteFinder
from tests.exports import export
from tests.models import model, node, value

SVG = "{http://www.w3.org/2000/svg}"
CASES = {
    "yolov8n": (("simam", "C2f[3]"), ("se", "C2f[5]")),
    "rtdetr-l": (("simam", "HGBlock[4]"), ("se", "RepC3[1]"), ("se", "HGBlock[5]")),
    "yolo11n": (("se", "C3k2[*]"),),
}


@cache
def outline(name: str) -> Outline:
    given = ModelFile.load(export(name, "simplified"))
    for block, after in CASES[name]:
        given = gsx.insert(given, block, after=after)
    return Outline(SiteFinder(given))


def drawn_parts(found: Outline) -> tuple[list[Box], list[tuple[str, str]]]:
    return parts(found.rows(), found.edges(), found.insertions())


def _inside(box: Box, low: tuple[float, float], high: tuple[float, float]) -> bool:
    """Whether the rectangle from ``low`` to ``high`` and a box have more than their edges in common."""
    return low[0] < box.x + BOX[0] and high[0] > box.x and low[1] < box.y + BOX[1] and high[1] > box.y


def check(drawing: Drawing) -> None:
    for a, b in combinations(drawing.boxes, 2):
        assert not _inside(a, (b.x, b.y), (b.x + BOX[0], b.y + BOX[1])), (a.key, b.key)
    for box in drawing.boxes:
        assert box.x > 0
        assert box.x + BOX[0] <= drawing.width
        assert 0 < box.y < drawing.height - BOX[1]
    for line in drawing.lines:
        for start, end in pairwise(line.points):
            assert start[0] == end[0] or start[1] == end[1], "lines go straight up, down or across"
            low, high = (min(start[0], end[0]), min(start[1], end[1])), (max(start[0], end[0]), max(start[1], end[1]))
            crossed = [box.key for box in drawing.boxes if _inside(box, low, high)]
            assert not crossed, (line.source.key, line.target.key, crossed)
        for point, box in ((line.points[0], line.source), (line.points[-1], line.target)):
            assert box.x <= point[0] <= box.x + BOX[0], (line.source.key, line.target.key)
            assert box.y <= point[1] <= box.y + BOX[1], (line.source.key, line.target.key)


@pytest.mark.parametrize("name", CASES)
def test_nothing_overlaps(name: str) -> None:
    check(arrange(*drawn_parts(outline(name))))


@pytest.mark.parametrize("seed", range(20))
def test_nothing_overlaps_in_graphs_of_any_kind(seed: int) -> None:
    rng = random.Random(seed)
    roles = sorted(
        (rng.choice(("backbone", "neck", "head")) for _ in range(25)), key=("backbone", "neck", "head").index
    )
    boxes = [Box(str(i), r, r, rng.choice((None, 2, 4, 8, 16)), str(i), "", "") for i, r in enumerate(roles)]
    wires = [(str(a), str(b)) for a, b in combinations(range(25), 2) if rng.random() < 0.12]
    wires += [(b, a) for a, b in wires if roles[int(b)] != "head"][:3]  # nothing leads back from a head
    check(arrange(boxes, wires))


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
    boxes = [Box(str(i), "backbone", "backbone", 8, str(i), "", "") for i in range(count)]
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


def test_inserted_blocks_are_between_and_stand_out() -> None:
    root = ElementTree.fromstring(outline("yolov8n").as_svg())
    fills = {}
    for group in root.iter(f"{SVG}g"):
        fills[group.findall(f"{SVG}text")[0].text] = group.findall(f"{SVG}rect")[0].get("fill")
    assert fills["simam"] == fills["se"]
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
