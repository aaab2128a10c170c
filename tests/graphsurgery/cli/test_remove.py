"""`graphsurgery remove`: list insertions, undo some, undo all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphsurgery as gsx


@pytest.fixture
def changed(folder: Path) -> Path:
    """The detector with three insertions, as changed.onnx."""
    model = gsx.insert(folder / "detector.onnx", "simam", after="/model.8")
    model = gsx.insert(model, "se", after=["/model.4", "/model.8"], gate="residual")
    return model.save(folder / "changed.onnx")


def test_list(cli: Any, changed: Path) -> None:
    lines = cli("remove", "changed.onnx").text.splitlines()
    assert lines[0].split() == ["id", "block", "where", "shape", "init", "added"]
    assert [line.split()[0] for line in lines[1:]] == ["model.8.simam", "model.4.se", "model.8.se"]
    assert "default, gated" in lines[2]


def test_list_as_json(cli: Any, changed: Path) -> None:
    data = json.loads(cli("remove", "changed.onnx", "--json").out)
    assert list(data) == ["model", "insertions"]
    assert [insertion["id"] for insertion in data["insertions"]] == ["model.8.simam", "model.4.se", "model.8.se"]
    assert data["insertions"][1]["gate"] == "residual"


def test_list_of_none(cli: Any) -> None:
    ended = cli("remove", "detector.onnx")
    assert (ended.code, ended.text) == (0, "detector.onnx has no insertions made by graphsurgery\n")
    assert json.loads(cli("remove", "detector.onnx", "--json").out)["insertions"] == []


def test_all(cli: Any, changed: Path, folder: Path) -> None:
    ended = cli("remove", "changed.onnx", "--all", "-o", "back.onnx")
    assert ended.code == 0
    assert "those of the original model" in ended.text
    assert (folder / "back.onnx").read_bytes() == (folder / "detector.onnx").read_bytes()


def test_one(cli: Any, changed: Path, folder: Path) -> None:
    data = json.loads(cli("remove", "changed.onnx", "model.4.se", "-o", "less.onnx", "--json").out)
    assert data == {
        "model": "changed.onnx",
        "output": "less.onnx",
        "removed": ["model.4.se"],
        "remaining": ["model.8.simam", "model.8.se"],
        "original": None,
    }
    assert [i.id for i in gsx.ModelFile.load(folder / "less.onnx").insertions()] == data["remaining"]
    assert "still there: model.8.se" in cli("remove", "less.onnx", "model.8.simam", "-o", "one.onnx").text
    last = json.loads(cli("remove", "one.onnx", "model.8.se", "-o", "none.onnx", "--json").out)
    assert last["original"] is True
    assert (folder / "none.onnx").read_bytes() == (folder / "detector.onnx").read_bytes()


def test_something_else_was_changed(cli: Any, changed: Path, folder: Path) -> None:
    model = onnx.load(changed)
    model.graph.node[0].doc_string = "edited by another tool"
    onnx.save(model, folder / "edited.onnx")
    ended = cli("remove", "edited.onnx", "--all", "-o", "back.onnx")
    assert ended.code == 0
    assert "the result is not the original model" in ended.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("changed.onnx", "model.9.se", "-o", "out.onnx"), "no insertion 'model.9.se'; it has model.8.simam"),
        (("detector.onnx", "--all", "-o", "out.onnx"), "nothing to undo"),
        (("changed.onnx", "model.4.se", "--all", "-o", "out.onnx"), "give ids or --all, not both"),
        (("changed.onnx", "-o", "out.onnx"), "say which insertions to undo: their ids, or --all"),
        (("changed.onnx", "--in-place"), "say which insertions to undo"),
        (("changed.onnx", "--all"), "say where the result goes"),
        (("changed.onnx", "--all", "-o", "detector.onnx"), "use --force"),
        (("changed.onnx", "--all", "-o", "changed.onnx"), "use --in-place"),
    ],
)
def test_refused(cli: Any, unchanged: Any, changed: Path, arguments: tuple[str, ...], said: str) -> None:
    with unchanged():
        assert said in cli("remove", *arguments).sentence(2)


def test_another_tool_took_the_nodes(cli: Any, unchanged: Any, changed: Path, folder: Path) -> None:
    model = onnx.load(changed)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, folder / "nameless.onnx")
    with unchanged():
        assert "cannot be taken out" in cli("remove", "nameless.onnx", "--all", "-o", "out.onnx").sentence(2)
