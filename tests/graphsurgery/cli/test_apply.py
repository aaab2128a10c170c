"""`graphsurgery apply`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsurgery as gsx
from graphsurgery.errors import GraphSurgeryError, RecipeError

RECIPE = """\
- {module: se, after: ['/model.{4,6}', /model.8], init: identity}
- module: simam
  after: /model.8
  settings: {e_lambda: 1e-3}
"""


def test_apply(cli: Any, folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    ended = cli("apply", "recipe.yaml", "detector.onnx", "-o", "out.onnx", "--json")
    assert ended.code == 0
    data = json.loads(ended.out)
    assert [i["id"] for i in data["insertions"]] == ["model.4.se", "model.6.se", "model.8.se", "model.8.simam"]
    assert all(i["parity"]["passed"] for i in data["insertions"])
    assert data["insertions"][3]["settings"] == {"e_lambda": 0.001}
    assert data["insertions"][3]["site"]["tensor"] == data["insertions"][2]["output_tensor"]
    assert (folder / "out.onnx").read_bytes() == gsx.Recipe.load(folder / "recipe.yaml").apply(
        folder / "detector.onnx"
    ).to_bytes()


def test_through_a_pipe(command: Any, folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    ended = command("apply", "recipe.yaml", "--no-verify", "-q", stdin=(folder / "detector.onnx").read_bytes())
    assert (ended.code, ended.err) == (0, "")
    assert len(gsx.ModelFile.load(ended.out).insertions()) == 4


def test_weights_beside_the_recipe(cli: Any, folder: Path) -> None:
    shapes = {"fc1.weight": (2, 32, 1, 1), "fc1.bias": (2,), "fc2.weight": (32, 2, 1, 1), "fc2.bias": (32,)}
    (folder / "recipes").mkdir()
    np.savez(folder / "recipes" / "w.npz", **{f"a.b.{key}": np.zeros(s, np.float32) for key, s in shapes.items()})
    (folder / "recipes" / "r.yaml").write_text("- {module: se, after: /model.8, weights: 'w.npz:a.b'}")
    ended = cli("apply", "recipes/r.yaml", "detector.onnx", "-o", "out.onnx", "--no-verify")
    assert ended.code == 0
    assert "no claim" not in ended.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {module: se}", "entry 1 of recipe.yaml: where should se go? give after: SELECTOR or before: SELECTOR"),
        ("- {module: se, after: /model.8}\n- {module: se, after: /model.8, strength: 3}", "entry 2 of recipe.yaml has"),
        ("- module: [", "recipe.yaml is not YAML: line"),
        ("- {module: se, after: /model.99}", "no module of the model matches"),
        ("- {module: magic, after: /model.8}", "there is no block 'magic'"),
        ("", "recipe.yaml has no insertions in it"),
    ],
)
def test_refused(cli: Any, unchanged: Any, folder: Path, text: str, said: str) -> None:
    (folder / "recipe.yaml").write_text(text)
    with unchanged():
        assert said in cli("apply", "recipe.yaml", "detector.onnx", "-o", "out.onnx").sentence(2)


def test_no_recipe(cli: Any, unchanged: Any) -> None:
    with unchanged():
        ended = cli("apply", "gone.yaml", "detector.onnx", "-o", "out.onnx")
        assert ended.sentence(2) == "there is no recipe gone.yaml"


@pytest.mark.parametrize(
    "words", [("detector.onnx",), ("detector.onnx", "other.onnx"), ("detector.onnx", "other.onnx", "-o", "out.onnx")]
)
def test_a_model_in_place_of_the_recipe(cli: Any, folder: Path, unchanged: Any, words: Any) -> None:
    (folder / "other.onnx").write_bytes((folder / "detector.onnx").read_bytes())
    said = "detector.onnx is an ONNX model, not a recipe: the recipe comes first, then the model"
    with unchanged():
        assert cli("apply", *words).sentence(2) == said
        with pytest.raises(RecipeError, match=f"^{re.escape(said)}$"):
            gsx.apply("detector.onnx", "r.yaml")


def test_exchanged_arguments_are_noticed_before_the_destination_is_looked_at(cli: Any, folder: Path) -> None:
    (folder / "r.yaml").write_text(RECIPE)
    said = "the recipe comes first: graphsurgery apply r.yaml detector.onnx ..."
    for words in ((), ("-o", "gone/out.onnx"), ("-o", "r.yaml"), ("--in-place",)):
        assert cli("apply", "detector.onnx", "r.yaml", *words).sentence(2) == said


def test_exchanged_arguments_are_noticed_whatever_the_files_are_called(cli: Any, folder: Path, unchanged: Any) -> None:
    """What each is, its contents say."""
    (folder / "insertions").write_text(RECIPE)
    (folder / "trained.bin").write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(9))
    (folder / "detector").write_bytes((folder / "detector.onnx").read_bytes())
    with unchanged():
        for first, second, what in (
            ("detector", "insertions", "recipe comes"),
            ("detector", "trained.bin", "blocks come"),
            ("detector.onnx", "insertions", "recipe comes"),
        ):
            said = f"the {what} first: graphsurgery apply {second} {first} ..."
            assert cli("apply", first, second, "-o", "out.onnx").sentence(2) == said
        said = cli("apply", "trained.bin", "insertions", "-o", "out.onnx").sentence(2)
        assert said == "trained.bin has its recipe in it: give the model that it is for, and not insertions"
    assert cli("apply", "insertions", "detector", "-o", "out.onnx", "--no-verify").code == 0


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        ("{module: smam, after: /model.8}", ("smam", "/model.8", {})),
        ("{module: simam, after: '/model.8['}", ("simam", "/model.8[", {})),
        ("{module: simam, after: /model.99}", ("simam", "/model.99", {})),
        ("{module: se, after: /model.8, settings: {redction: 8}}", ("se", "/model.8", {"settings": {"redction": 8}})),
        ("{module: se, after: /model.8, lowering: 'no'}", ("se", "/model.8", {"lowering": "no"})),
    ],
)
def test_errors_name_the_entry(cli: Any, folder: Path, entry: str, asked: Any) -> None:
    """Whatever the error of the insertion says, and all that it carries, is said of the entry."""
    (folder / "r.yaml").write_text(f"- {{module: simam, after: /model.6}}\n- {entry}\n")
    module, after, more = asked
    with pytest.raises(GraphSurgeryError) as alone:
        gsx.insert("detector.onnx", module, after=after, **more)
    with pytest.raises(type(alone.value)) as found:
        gsx.apply("r.yaml", "detector.onnx")
    assert str(found.value) == f"entry 2 of r.yaml: {alone.value}"
    assert (found.value.option, found.value.candidates) == (alone.value.option, alone.value.candidates)
    ended = cli("apply", "r.yaml", "detector.onnx", "-o", "out.onnx")
    assert ended.sentence(2).startswith("entry 2 of r.yaml: ")
    assert ("^" in ended.err) == ("^" in str(alone.value))
