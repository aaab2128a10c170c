"""What is nested in pictures and tables: insertions inside of blocks, and units that are drawn as one box."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.edges import Edge
from graphsurgery.outline.outline import Outline
from graphsurgery.outline.picture.boxes import Box
from graphsurgery.outline.picture.layout import arrange
from graphsurgery.selection.sites import SiteFinder
from tests.exports import export
from tests.pictures import check, drawn_parts, everything, level, outline
from tests.recognition.randomise import randomise
from tests.recognition.roles import exported


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


def test_units_that_no_pattern_knows_stand_as_one_box() -> None:
    """FastestDet shuffles by picking every second channel: no pattern knows the 13 units that keep the size."""
    whole = level(outline("fastestdet"))
    folded = {name: members for name, members in whole.members.items() if "stages" in name}
    assert len(folded) == 13
    assert folded["/backbone/stages.0/stages.0.2"] == (
        *("op:Gather[2]", "op:Gather[3]", "Conv[6]", "DWConv[3]", "Conv[7]", "Concat[1]"),
    )
    assert "Conv[5]" in {row.name for row in whole.inside["/backbone/stages.0/stages.0.1"].rows}, "inserted behind it"
    assert len(whole.rows) < 30
    inside = level(outline("fastestdet"), 2).inside["/backbone/stages.0/stages.0.2"]
    assert Edge("Conv[7]", "Concat[1]", ()) in inside.edges


def test_folds_without_names() -> None:
    found = Outline(SiteFinder(ModelFile.load(randomise(exported("fastestdet")[0])[0])))
    boxes, _ = drawn_parts(found)
    named = len(level(outline("fastestdet")).rows)
    assert len(level(found).rows) == named
    assert "Gather[2] and 5 more" in {box.title for box in boxes}
