"""Recipes that are small and stand for much, and values that no model has: refused in a sentence, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import graphsurgery as gsx
from graphsurgery.errors import GraphSurgeryError, ModelError, RecipeError
from graphsurgery.messages import brief
from graphsurgery.modelfile import limits
from graphsurgery.recipe import Recipe
from tests import models


def nested(row: Callable[[str], str]) -> str:
    """Six rows, each of which names the one before fourteen times: 14**6 values in 400 bytes."""
    rows = ["a: &a {x: 1, y: 2}"]
    for before, name in zip("abcdef", "bcdefg", strict=True):
        rows.append(f"{name}: &{name} " + row(", ".join([f"*{before}"] * 14)))
    return "\n".join(rows)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(nested(lambda many: f"[{many}]"), id="aliases"),
        pytest.param(nested(lambda many: f"{{<<: [{many}]}}"), id="merge keys"),
        pytest.param(nested(lambda many: f"{{? [{many}] : 1}}"), id="in a key"),
        pytest.param("[" + "x, " * limits.RECIPE_VALUES + "x]", id="a long list"),
    ],
)
def test_a_recipe_that_stands_for_too_many_values_is_refused_before_any_is_built(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(yaml.constructor.BaseConstructor, "construct_document")
    with pytest.raises(RecipeError, match="stands for more than 65,536 values"):
        Recipe.from_text(text)


def test_aliases_and_merge_keys_work() -> None:
    common = "{settings: &s {reduction: 2}, <<: {init: identity}, module: se, after: /a}"
    one, two = Recipe.from_text(f"[&a {common}, {{<<: *a, settings: *s, after: /b}}]").requests
    assert (one.init, two.init, two.settings, two.after) == ("identity", "identity", {"reduction": 2}, ("/b",))


def test_a_recipe_of_more_than_a_megabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(RecipeError, match=r"^r\.yaml is larger than 1 MB"):
        Recipe.load(path)
    with pytest.raises(RecipeError, match=r"^the recipe is larger than 1 MB"):
        Recipe.from_text(" " * (limits.RECIPE_BYTES + 1))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param("seed: " + "9" * 5000, "has a value of 5,000 characters in line 1", id="5,000 digits"),
        pytest.param("seed: -0x" + "f" * 4000, "from 0 on, not a whole number of about 4817 digits", id="hexadecimal"),
        pytest.param("init: 0x" + "f" * 4000, "there is no init a whole number of about 4817", id="a choice"),
        ("settings: {reduction: &r [*r, *r, *r]}", "has to be one value, not [[[...], [...], [...]], "),
        ('weights: "a\\0.pt"', r"weights 'a\x00.pt' has a zero byte in it, which no name has"),
        ('qdq: int8, qdq_scale: images, images: "a\\0b"', r"images 'a\x00b' has a zero byte in it"),
        ('lowering: "\\0"', r"lowering '\x00' has a zero byte in it"),
    ],
)
def test_a_value_that_cannot_be_is_named(entry: str, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Recipe.from_text(f"[{{module: se, after: /a, {entry}}}]")
    assert said in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["zero byte", "surrogate"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    model = models.detector()
    with pytest.raises(ModelError, match="cannot be the path of a file"):
        gsx.ModelFile.load(name)
    for module, weights in ((f"{name}.onnx", None), ("se", f"{name}.npz")):
        with pytest.raises(GraphSurgeryError, match=r"has a zero byte|cannot be the path|there is no weights file"):
            gsx.insert(model, module, after="model.1", weights=weights)
    with pytest.raises(GraphSurgeryError, match=r"cannot be the path|has a zero byte"):
        Recipe.load(name)


def test_a_value_in_a_message_is_short() -> None:
    assert brief({"reduction": 8, "bias": True}) == "{'bias': True, 'reduction': 8}"
    assert brief(-(10**39)) == str(-(10**39))
    assert brief(10**5000) == "a whole number of about 5001 digits"
    assert len(brief("x" * 10**6)) == 200
    assert len(brief([["x" * 1000] * 1000] * 1000)) < 9000
