"""`graphsurgery adopt`, and what `verify` and `remove` say of a model whose records are lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphsurgery as gsx
from tests.optimisers import without_metadata


@pytest.fixture
def lost(folder: Path) -> Path:
    """A model with a block, without the record of it; recipe.yaml is what put it in."""
    (folder / "recipe.yaml").write_text("- {module: simam, after: '/model.{4,8}'}\n")
    edited = gsx.apply(folder / "recipe.yaml", folder / "detector.onnx")
    onnx.save(without_metadata(edited.proto()), folder / "lost.onnx")
    return folder / "lost.onnx"


def test_the_way_out_is_said(cli: Any, unchanged: Any, lost: Path) -> None:
    for words in (("verify",), ("remove", "--all", "-o", "out.onnx"), ("remove", "model.8.simam", "-o", "out.onnx")):
        with unchanged():
            said = cli(words[0], "lost.onnx", *words[1:]).sentence(2)
        assert "its nodes are named as those of model.4.simam, model.8.simam are" in said
        assert "graphsurgery adopt with the recipe" in said
    assert "graphsurgery adopt with the recipe" in cli("remove", "lost.onnx").text
    assert json.loads(cli("remove", "lost.onnx", "--json").out)["insertions"] == []


def test_adopted(cli: Any, lost: Path, folder: Path) -> None:
    ended = cli("adopt", "lost.onnx", "--recipe", "recipe.yaml", "-o", "out.onnx", "--json")
    assert json.loads(ended.out) == {
        "model": "lost.onnx",
        "output": "out.onnx",
        "adopted": ["model.4.simam", "model.8.simam"],
    }
    assert cli("verify", "out.onnx", "--seeds", "1", "-q").code == 0
    assert cli("remove", "out.onnx", "--all", "-o", "again.onnx", "-q").code == 0
    assert onnx.load(folder / "again.onnx").graph == onnx.load(folder / "detector.onnx").graph


def test_in_place_and_in_words(cli: Any, lost: Path) -> None:
    before = lost.read_bytes()
    dry = cli("adopt", "lost.onnx", "--recipe", "recipe.yaml", "--in-place", "--dry-run")
    assert (dry.code, lost.read_bytes()) == (0, before)
    ended = cli("adopt", "lost.onnx", "--recipe", "recipe.yaml", "--in-place", "-v")
    lines = ended.text.splitlines()
    assert lines[0] == "model.4.simam: simam after /model.4, [1, 16, 40, 40] float32, 5 nodes"
    assert lines[1].startswith("  nodes: /model.4/simam/")
    assert lines[-1] == "written to lost.onnx"
    assert cli("remove", "lost.onnx").text.count("simam") >= 2
    assert cli("adopt", "lost.onnx", "--recipe", "recipe.yaml", "--in-place").error(2).endswith("nothing to adopt")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("- {module: simam, after: /model.6}", "the recipe inserts model.6.simam, and lost.onnx has no such block"),
        ("- {module: se, after: /model.8}", "has no nodes that are named as those of an inserted se are"),
        ("- {module: simam}", "entry 1 of recipe.yaml: where should simam go?"),
    ],
)
def test_refused(cli: Any, unchanged: Any, lost: Path, folder: Path, recipe: str, said: str) -> None:
    (folder / "recipe.yaml").write_text(recipe)
    with unchanged():
        assert said in cli("adopt", "lost.onnx", "--recipe", "recipe.yaml", "-o", "out.onnx").sentence(2)


def test_ignore_rest(cli: Any, folder: Path) -> None:
    """Another tool changed the model around the blocks: that is a failure, unless it is meant."""
    edited = gsx.insert(folder / "detector.onnx", "simam", after="/model.8").proto()
    next(each for each in edited.graph.node if each.op_type == "Conv").doc_string = "rewritten"
    onnx.save(edited, folder / "rewritten.onnx")
    ended = cli("verify", "rewritten.onnx", "--seeds", "1")
    assert "connected and agree, and without the insertions it is not the original any more" in ended.error(1)
    assert "--ignore-rest" in ended.error(1)
    ended = cli("verify", "rewritten.onnx", "--seeds", "1", "--ignore-rest")
    assert ended.code == 0
    assert "rest of the model: changed, which is ignored: " in ended.text
    ended = cli("verify", "rewritten.onnx", "--seeds", "1", "--ignore-rest", "--json")
    report = json.loads(ended.out)
    assert (report["passed"], report["unchanged"]["passed"], report["unchanged"]["ignored"]) == (True, False, True)
    said = cli("verify", "rewritten.onnx", "--ignore-rest", "--original", "detector.onnx").sentence(2)
    assert "--original" in said
    assert "--ignore-rest" in said
