"""Recipes: what is read, and how what cannot be read is told."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import graphsurgery as gsx
from graphsurgery.errors import RecipeError
from graphsurgery.recipe import Recipe
from graphsurgery.request import Request

DETECTOR = Path(__file__).parents[2] / "examples" / "01_first_insertion" / "detector.onnx"

FULL = """\
# every key
- module: se
  after: [/model.4, '/model.{6,8}']
  settings: {reduction: 8, bias: no}
  init: default
  seed: 7
  gate: residual
  weights: trained.npz:model.4.se
  target: onnxruntime
  precision: fp32
  lowering: default
- module: ge[theta]
  after: /model.9
  consumers: [Concat, 'output:y']
- module: simam
  before: SPPF
"""


def test_every_key_and_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(FULL)
    first, second, third = Recipe.load(path).requests
    assert first == Request(
        module="se",
        after=("/model.4", "/model.{6,8}"),
        settings={"reduction": 8, "bias": False},
        init="default",
        seed=7,
        gate="residual",
        weights=str(tmp_path / "trained.npz:model.4.se"),
        target="onnxruntime",
        precision="fp32",
        lowering="default",
    )
    assert second == Request(module="ge[theta]", after=("/model.9",), consumers=("Concat", "output:y"))
    assert third == Request(module="simam", before=("SPPF",))


@pytest.mark.parametrize(
    ("module", "told"), [("sk", True), ("sk[paper]", False), ("sk[official]", False), ("sk[timm]", False)]
)
def test_a_bare_name_that_meant_another_block_before_is_told(module: str, told: bool) -> None:
    """A recipe does not tell its age. Elsewhere, a name is said now and means what it means now."""
    entry = f"- {{module: '{module}', after: /model.4, settings: {{hidden: 4, groups: 4}}}}\n"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Recipe.from_text(entry).apply(DETECTOR)
        named = [str(each.message) for each in caught]
        gsx.insert(DETECTOR, module, after="/model.4", settings={"hidden": 4, "groups": 4})
    assert any("sk is sk[paper], and was sk[official] before" in each for each in named) == told
    assert not any("before" in str(each.message) for each in caught[len(named) :])


def test_the_list_may_stand_under_a_key() -> None:
    text = "- {module: se, after: /model.8}\n"
    assert Recipe.from_text(f"insertions:\n{text}") == Recipe.from_text(text)


def test_a_key_without_a_value_is_a_key_left_out() -> None:
    assert Recipe.from_text("[{module: se, after: /a, weights: , seed: }]").requests == (Request("se", ("/a",)),)


def test_weights_paths(tmp_path: Path) -> None:
    absolute = tmp_path / "w.npz"
    (tmp_path / "r.yaml").write_text(f"[{{module: se, after: /a, weights: '{absolute}:x'}}]")
    assert Recipe.load(tmp_path / "r.yaml").requests[0].weights == f"{absolute}:x"
    text = "[{module: se, after: /a, weights: w.npz}]"
    assert Recipe.from_text(text).requests[0].weights == "w.npz"
    assert Recipe.from_text(text, folder="r").requests[0].weights == str(Path("r") / "w.npz")


def test_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- {module: se, after: /a}", encoding="utf-8-sig")
    assert len(Recipe.load(tmp_path / "r.yaml").requests) == 1


def test_apply_is_inserting_one_after_the_other() -> None:
    recipe = Recipe.from_text("[{module: simam, after: /model.8}, {module: se, after: [/model.4, /model.8]}]")
    model = recipe.apply(DETECTOR)
    assert [insertion.id for insertion in model.insertions()] == ["model.8.simam", "model.4.se", "model.8.se"]
    assert gsx.remove(model).to_bytes() == DETECTOR.read_bytes()


KNOWN = "module, after, before, consumers, settings, init, seed, gate, weights, target, precision, lowering"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the recipe has no insertions in it"),
        ("insertions:", "the recipe has no insertions in it"),
        ("[]", "the recipe has no insertions in it"),
        ("just text", "the recipe is a text; a recipe is a list of insertions"),
        ("{module: se, after: /a}", "the recipe has the unknown key 'module' at its top"),
        ("{}", "the recipe has nothing in it"),
        ("[se]", f"entry 1 of the recipe is a text; it has to be a mapping with the keys {KNOWN}"),
        ("[{module: se, after: /a}, null]", "entry 2 of the recipe is a blank entry"),
        ("[{module: se, after: /a, strength: 1}]", f"has the unknown key 'strength'; the known ones are {KNOWN}"),
        ("[{module: se, after: /a, 3: 1}]", "has the unknown key 3"),
        ("[{module: se}]", "entry 1 of the recipe: where should se go? give after: SELECTOR or before: SELECTOR"),
        (
            "[{module: se, after: /a, before: /b}]",
            "entry 1 of the recipe: a block goes after something or before something: give after or before, not both",
        ),
        ("[{module: se, before: /b, consumers: /a}]", "entry 1 of the recipe: consumers goes with after"),
        ("[{module: se, consumers: /a}]", "entry 1 of the recipe: where should se go? give after: SELECTOR or"),
        ("[{module: se, before: 8}]", "entry 1 of the recipe: before is a selector or a list of selectors"),
        ("[{module: se, after: /a, consumers: []}]", "'consumers' in entry 1 of the recipe is an empty list"),
        ("[{after: /a}]", "entry 1 of the recipe has no 'module'"),
        (
            "[{module: 3, after: /a}]",
            "entry 1 of the recipe: module is the name of a block, a text such as 'simam', not 3",
        ),
        ("[{module: se, after: 8}]", "each a text such as '/model.8', not 8"),
        ("[{module: se, after: [/a, 8]}]", "each a text such as '/model.8', not ['/a', 8]"),
        ("[{module: se, after: []}]", "is an empty list"),
        (
            "[{module: se, after: /a, settings: [1]}]",
            "settings are hyper-parameters by name, as in {'reduction': 8}, not [1]",
        ),
        ("[{module: se, after: /a, settings: {1: 2}}]", "has the name 1, which is not a text"),
        ("[{module: se, after: /a, settings: {reduction: [4, 8]}}]", "has to be one value, not [4, 8]"),
        ("[{module: se, after: /a, seed: one}]", "seed is a whole number from 0 on, not 'one'"),
        ("[{module: se, after: /a, seed: -1}]", "seed is a whole number from 0 on, not -1"),
        ("[{module: se, after: /a, seed: yes}]", "seed is a whole number from 0 on, not True"),
        (
            "[{module: se, after: /a, gate: yes}]",
            "entry 1 of the recipe: there is no gate True; it is one of none, residual",
        ),
        ("- module: se\n  after: /a\n  after: /b\n", "has the key 'after' twice in one place (line 3)"),
        ("- module: se\n after: /a\n", "the recipe is not YAML: line 2, column 2: "),
        ("[{module: ge[theta], after: /a}]", "the recipe is not YAML: line 1, column 13: "),
        ("[{module: se", "the recipe is not YAML: "),
        ("a\x00b", "the recipe is not YAML: "),
        ("at: 2024-99-99", "the recipe is not YAML: "),
        ("? [a]\n: b", "the recipe is not YAML: "),
        ("- " * 2000 + "a", "it is nested too deeply"),
        ("- !!python/object/apply:os.system ['true']", "the recipe is not YAML: "),
        ("--- []\n--- []", "the recipe is not YAML: "),
        ("&a [*a]", "entry 1 of the recipe is a list"),
    ],
)
def test_what_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Recipe.from_text(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        Recipe.load(tmp_path / "gone.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary\.yaml is not a text file"):
        Recipe.load(tmp_path / "binary.yaml")
