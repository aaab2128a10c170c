"""One listing: blocks that were inserted, rewritten, put in the place of something, and found."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

import graphsurgery as gsx
from graphsurgery.cli.main import main
from graphsurgery.diff.diff import diff
from graphsurgery.find import Found, find, standing_block
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.outline import Outline
from graphsurgery.rewriting import rewrite
from graphsurgery.selection.sites import SiteFinder
from tests.pages import TRAINED

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"
INNER = "/model.4/m.0"
"""the bottleneck in a C2f"""


@cache
def rewritten() -> ModelFile:
    return rewrite(ModelFile.load(TRAINED)).model


@cache
def found() -> tuple[Found, ...]:
    return tuple(find(TRAINED))


@cache
def in_place() -> ModelFile:
    return gsx.insert(DETECTOR, "eca", in_place_of=INNER)


def outline(model: ModelFile | Path, *parts: Found) -> Outline:
    return Outline(SiteFinder(ModelFile.load(model)), [standing_block(each) for each in parts])


def whole(each: Outline) -> list[tuple[str | None, str | None, tuple[str, ...]]]:
    return [(row.path, row.role, row.roles) for row in each.rows()]


def test_found_and_rewritten_ones_have_the_same_rows() -> None:
    before, after = outline(TRAINED, *found()), outline(rewritten())
    assert whole(before) == whole(after)
    assert [row.standing.id for row in before.rows() if row.standing] == ["attention1", "attention2"]
    assert [row.standing.id for row in after.rows() if row.standing] == ["attention1.se", "attention2.simam"]
    assert [row.type for row in before.rows() if row.standing] == ["se", "simam"]
    assert [row.readers for row in before.rows()][1:4] == [("attention1",), ("stage2",), ("attention2",)]
    assert [row.readers for row in after.rows()][1:4] == [("attention1.se",), ("stage2",), ("attention2.simam",)]


def test_each_tells_how_it_came_there() -> None:
    rows = {
        "found": outline(TRAINED, *found()).standing()[0],
        "rewritten": outline(rewritten()).standing()[0],
        "in place": outline(in_place()).standing()[0],
        "inserted": outline(gsx.insert(DETECTOR, "simam", after="/model.4")).standing()[0],
    }
    assert {origin: each.origin for origin, each in rows.items()} == {origin: origin for origin in rows}
    assert {origin: str(each) for origin, each in rows.items()} == {
        "found": "attention1: found: 10 nodes, proven",
        "rewritten": "attention1.se: rewritten from 10 nodes",
        "in place": "model.4.m.0.eca: in place of 7 nodes",
        "inserted": "model.4.simam",
    }
    keys = {frozenset(each.to_json()) for each in rows.values()}
    assert len(keys) == 1
    assert json.loads(json.dumps(rows["found"].to_json()))["shape"] == [1, 32, 40, 40]


def test_what_is_around_a_block_in_the_place_of_something_keeps_its_name() -> None:
    before, after = outline(DETECTOR), outline(in_place())
    assert whole(before) == [row for row in whole(after) if row[0] != INNER]
    assert [row.name for row in before.rows() if "C2f" in row.name] == [
        row.name for row in after.rows() if "C2f" in row.name and row.depth == 1
    ]
    assert [(each.tensor, each.shape) for each in gsx.sites(in_place(), "C2f[*]")] == [
        (each.tensor, each.shape) for each in gsx.sites(DETECTOR, "C2f[*]")
    ]
    (row,) = [row for row in after.rows() if row.standing]
    assert (row.type, row.path, row.depth, row.shape) == ("eca[official]", INNER, 2, (1, 8, 40, 40))


def test_a_block_goes_behind_what_is_around_and_both_come_out() -> None:
    both = gsx.insert(in_place(), "simam", after="C2f[1]")
    assert [each.id for each in both.insertions()] == ["model.4.m.0.eca", "model.4.simam"]
    assert gsx.verify(both, providers="cpu").passed
    (row,) = [row for row in outline(both).rows() if row.name == "C2f[1]"]
    assert row.insertions == ("model.4.simam",)
    assert gsx.remove(both).to_bytes() == DETECTOR.read_bytes()


@pytest.mark.parametrize(
    ("which", "said", "legend", "others"),
    [
        ("found", "found: 10 nodes, proven", "found attention", ("cross-hatch", "inserted block")),
        ("rewritten", "rewritten from 10 nodes", "rewritten block", ("stroke-dasharray", "inserted block")),
        ("in place", "in place of 7 nodes", "inserted block", ("stroke-dasharray", "cross-hatch")),
    ],
)
def test_pictures_draw_each_as_such(which: str, said: str, legend: str, others: tuple[str, ...]) -> None:
    drawn = {
        "found": lambda: outline(TRAINED, *found()),
        "rewritten": lambda: outline(rewritten()),
        "in place": lambda: outline(in_place()),
    }[which]().as_svg()
    assert f">{said}</text>" in drawn
    assert f">{legend}</text>" in drawn
    assert not any(each in drawn for each in others)


def test_sites_looks_for_attention_when_it_is_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", str(TRAINED), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["standing"] == []
    assert main(["sites", str(TRAINED), "--found", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(each["id"], each["origin"], each["module"], each["proven"]) for each in said["standing"]] == [
        ("attention1", "found", "se", True),
        ("attention2", "found", "simam", True),
    ]
    (site,) = [each for each in said["sites"] if each.get("standing") == "attention1"]
    assert site["selector"] == "attention1"
    assert [each.tensor for each in gsx.sites(TRAINED, site["selector"])] == [site["tensor"]]


def test_the_table_names_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rewritten().save(tmp_path / "m.onnx")
    assert main(["sites", str(tmp_path / "m.onnx")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "inserted" in lines[0]
    (line,) = [line for line in lines if line.startswith("attention1.se (se) ")]
    assert "rewritten from 10 nodes" in line
    assert main(["info", str(tmp_path / "m.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replaced"]["attention1.se"] == "rewritten from 10 nodes"
    assert main(["tensorrt", "check", str(tmp_path / "m.onnx"), "--parser", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replaced"]["attention1.se"] == "rewritten from 10 nodes"


def test_bench_says_what_came_back() -> None:
    report = gsx.bench(rewritten(), rounds=2, warm_up=0)
    assert report.to_json()["put_back"] == report.removed == 2
    assert "(2 taken out again, what stood there put back)" in next(iter(report.lines()))


def test_a_difference_names_the_block_and_not_one_node_for_another() -> None:
    there, back = diff(TRAINED, rewritten()), diff(rewritten(), TRAINED)
    assert [(each.kind, each.name, each.what, each.details) for each in there.changes["blocks"]] == [
        ("added", "attention1.se", "se", ("rewritten from 10 nodes",)),
        ("added", "attention2.simam", "simam", ("rewritten from 11 nodes",)),
    ]
    assert [each.kind for each in back.changes["blocks"]] == ["removed", "removed"]
    nodes = {name for each in rewritten().insertions() for name in each.nodes}
    assert {each.name for each in there.changes["nodes"] if each.kind == "added"} == nodes
    assert {each.kind for each in there.changes["nodes"]} == {"added", "removed"}
