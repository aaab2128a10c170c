"""What is given from Python in a wrong type is told in a sentence, as everything else that is wrong."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields, replace
from typing import Any, Union

import pytest
import typer

import graphsurgery
from graphsurgery.cli.main import application
from graphsurgery.errors import RecipeError, RequestError
from graphsurgery.recipe import Recipe
from graphsurgery.request import Request, arguments, fits
from tests import models

pytestmark = pytest.mark.smoke

SELECTORS = "is a selector or a list of selectors, each a text such as '/model.8', not"
SETTINGS = "settings are hyper-parameters by name, as in {'reduction': 8}, not"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"after": 3}, f"after {SELECTORS} 3"),
        ({"after": None}, f"after {SELECTORS} None"),
        ({"after": ["/model.2", 3]}, f"after {SELECTORS} ['/model.2', 3]"),
        ({"after": b"/model.2"}, f"after {SELECTORS} b'/model.2'"),
        ({"after": {"/model.2": 1}}, f"after {SELECTORS} {{'/model.2': 1}}"),
        ({"before": 3.5}, f"before {SELECTORS} 3.5"),
        ({"after": "/model.2", "consumers": object}, f"consumers {SELECTORS} <class 'object'>"),
        ({"module": 7}, "module is the name of a block, a text such as 'simam', not 7"),
        ({"module": None}, "module is the name of a block, a text such as 'simam', not None"),
        ({"settings": 5}, f"{SETTINGS} 5"),
        ({"settings": ["e_lambda"]}, f"{SETTINGS} ['e_lambda']"),
        ({"settings": "e_lambda=1"}, f"{SETTINGS} 'e_lambda=1'"),
        ({"settings": {1: 2}}, f"{SETTINGS} {{1: 2}}"),
        ({"seed": "3"}, "seed is a whole number from 0 on, not '3'"),
        ({"seed": True}, "seed is a whole number from 0 on, not True"),
    ],
)
def test_wrong_types(given: dict[str, Any], words: str) -> None:
    place = {} if "before" in given else {"after": "/model.2"}
    with pytest.raises(RequestError) as raised:
        graphsurgery.insert(models.detector(), **{"module": "simam", **place, **given})
    assert str(raised.value) == words


def test_one_and_several() -> None:
    once = graphsurgery.insert(models.detector(), "simam", after="/model.2").to_bytes()
    for after in (["/model.2"], ("/model.2",), iter(["/model.2"]), {"/model.2"}):
        assert graphsurgery.insert(models.detector(), "simam", after=after, settings=None).to_bytes() == once  # type: ignore[arg-type]


# ---------------------------------------------------------------------- one declaration


def test_insert_has_the_arguments_that_request_declares() -> None:
    """Its signature is written out for editors; names, order and defaults are those of the fields."""
    model, *given, custom_ops = inspect.signature(graphsurgery.insert).parameters.values()
    assert (model.name, custom_ops.name) == ("model", "custom_ops")  # what is of this machine is in no recipe
    assert [each.name for each in given] == [each.name for each in fields(Request)]
    for each in given:
        default = arguments()[each.name].default
        empty = {} if each.default is None and each.name in ("settings", "shapes") else each.default
        assert (inspect.Parameter.empty if default is MISSING else default) == empty
        assert re.search(rf"^(\w+, )?{each.name}(, \w+)?:$", inspect.getdoc(graphsurgery.insert) or "", re.MULTILINE)


def test_the_command_has_an_option_for_each() -> None:
    command = typer.main.get_command(application("insert")).commands["insert"]  # type: ignore[attr-defined]
    options = {each.name: each for each in command.params}
    for name, declared in arguments().items():
        option = options[name]
        flags = {"settings": "--set", "shapes": "--shape"}
        assert max(option.opts, key=len) == flags.get(name, f"--{name.replace('_', '-')}")
        assert option.help
        assert "\ue000" not in option.help
        assert set(declared.argument.choices) <= set((option.metavar or "").split("|"))


@pytest.mark.parametrize("name", list(arguments()))
def test_a_recipe_has_a_key_for_each(name: str) -> None:
    """A value of the wrong type comes as far as the check of that field, and is told with its name."""
    entry = {"module": "simam", "after": "/a", name: 7.5}
    with pytest.raises(RecipeError, match=rf"entry 1 of the recipe: .*{name.replace('_', '.')}.* 7\.5") as raised:
        Recipe.from_text(str([entry]))
    assert raised.value.option == name


def test_a_request_is_checked_when_it_is_made_and_when_it_is_altered() -> None:
    request = Request("simam", "/model.8")  # type: ignore[arg-type]
    assert request.after == ("/model.8",)
    with pytest.raises(RequestError, match=r"give after= or before=, not both") as raised:
        replace(request, before=("/model.9",))
    assert raised.value.option == "after"
    with pytest.raises(
        RequestError, match=r"there is no target 'npu'; it is one of tensorrt, onnxruntime, dla"
    ) as raised:
        replace(request, target="npu")
    assert (raised.value.option, raised.value.candidates) == ("target", ("tensorrt", "onnxruntime", "dla"))


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (True, bool, True),
        (None, str | None, True),
        (None, Union[int, str], False),  # noqa: UP007
        (("a", "b"), tuple[str, ...], True),
        (("a", 1), tuple[str, ...], False),
        (["a"], tuple[str, ...], False),
        ({"a": 1}, dict[str, Any], True),
        ({1: 1}, dict[str, Any], False),
        ({"a": {"b": 1.5}}, dict[str, dict[str, int]], False),
        ([], dict[str, Any], False),
    ],
)
def test_values_against_types(value: object, hint: Any, expected: bool) -> None:
    assert fits(value, hint) is expected


# ---------------------------------------------------------------------- the other functions


@pytest.mark.parametrize(
    ("function", "given", "words"),
    [
        (graphsurgery.sites, {"selector": 3}, f"selector {SELECTORS} 3"),
        (graphsurgery.remove, {"ids": 3}, "ids is the id of an insertion, such as 'model.8.simam', or a list of them,"),
        (graphsurgery.verify, {"trust": 3}, "trust is a PyTorch module such as 'mypkg.blocks:MyAttention', or a list"),
        (graphsurgery.verify, {"trust": None}, "trust is a PyTorch module such as"),
        (graphsurgery.verify, {"seeds": "3"}, "seeds is a whole number from 1 on, not '3'"),
        (graphsurgery.verify, {"seeds": 0}, "seeds is a whole number from 1 on, not 0"),
        (graphsurgery.verify, {"seeds": -1}, "seeds is a whole number from 1 on, not -1"),
        (graphsurgery.verify, {"only": 3}, "only is the id of an insertion or a list of them, not 3"),
        (graphsurgery.verify, {"images": 3}, "images is the name of a folder, not 3"),
        (graphsurgery.verify, {"providers": 3}, "providers is the name of a provider, such as 'cuda', or a list"),
        (graphsurgery.bench, {"providers": None}, "providers is the name of a provider, such as 'cuda', or a list"),
        (graphsurgery.bench, {"rounds": "3"}, "rounds is a whole number from 2 on, not '3'"),
        (graphsurgery.bench, {"rounds": 1}, "rounds is a whole number from 2 on, not 1"),
        (graphsurgery.bench, {"warm_up": -1}, "warm_up is a whole number from 0 on, not -1"),
        (graphsurgery.bench, {"threads": -1}, "threads is a whole number from 0 on, not -1"),
        (graphsurgery.bench, {"batch": 0}, "batch is a whole number from 1 on, not 0"),
        (graphsurgery.bench, {"shapes": 3}, "shapes are sizes by input, as in {'images': (1, 3, 640, 640)}, not 3"),
        (graphsurgery.check, {"version": None}, "there is no table for TensorRT None; known are"),
        (lambda model, path: graphsurgery.insert(model, "simam", after="/model.2").save(path), {"path": 3}, "path is"),
        (lambda model, name: graphsurgery.block(name), {"name": 3}, "name is the name of a block, a text such as"),
        (lambda model, recipe: graphsurgery.apply(recipe, model), {"recipe": 3}, "recipe is the path of a YAML file,"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_wrong_types_of_other_functions(function: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=re.escape(words)) as raised:
        function(models.detector(), **given)
    assert raised.value.option == next(iter(given))


def test_one_and_several_of_other_functions() -> None:
    pytest.importorskip("torch")
    model = graphsurgery.insert(models.detector(), "simam", after="/model.2")
    assert graphsurgery.sites(model, ["/model.3", "/model.2"]) == [
        *graphsurgery.sites(model, "/model.3"),
        *graphsurgery.sites(model, "/model.2"),
    ]
    assert graphsurgery.verify(model, providers="cpu", only="model.2.simam", seeds=1).passed
    assert graphsurgery.bench(model, providers="cpu", rounds=2, warm_up=0, shapes={"images": [1, 3, 32, 32]}).timed
    for number, text in ((10, "10"), (8.6, "8.6")):
        assert graphsurgery.check(model, number).to_json() == graphsurgery.check(model, text).to_json()
