"""What the version of the corpus made, this one verifies, takes out again, and makes once more to the byte."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphsurgery as gsx
from graphsurgery.api import carry_out
from tests.compatibility import calls, changes, commands, corpus
from tests.compatibility.compare import results
from tests.compatibility.insert_requests import MODELS, requests

INDEX = corpus.index()
ENTRIES = {entry.key: entry for entry in corpus.entries()}
KEPT = {key: entry for key, entry in ENTRIES.items() if entry.host != corpus.EXAMPLE}
MEASURED = frozenset({"uint8/images"})
"""what depends on numbers that the machine computes"""


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's own modules can be imported, as they could when the corpus was made."""
    monkeypatch.syspath_prepend(str(corpus.OWN))
    yield
    sys.modules.pop("own_blocks", None)


def check(name: str, now: Any, before: Any) -> None:
    """A result is what it was; or it is said to have changed, and has."""
    why = changes.reason(name)
    assert (now == before) == (why is None), f"{name}: {why or 'not what it was'}"


def read(entry: corpus.Entry, folder: Path) -> Path:
    """A copy of a file of the corpus, with the external data that it had beside it."""
    shutil.copy(entry.made, folder)
    for beside in gsx.ModelFile.load(corpus.host(entry.host)).external_data:
        shutil.copy(corpus.HOSTS / beside, folder)
    return folder / entry.made.name


def test_the_corpus_is_whole() -> None:
    assert set(INDEX["files"]) == set(ENTRIES)
    assert set(INDEX["calls"]) == set(calls.CALLS)
    assert set(INDEX["commands"]) == set(commands.COMMANDS)
    assert set(INDEX["requests"]) == {each.key for each in requests() if each.model == corpus.EXAMPLE}
    assert {path.relative_to(corpus.MADE).with_suffix("").as_posix() for path in corpus.MADE.glob("*/*")} == set(KEPT)
    assert all(told["verified"] for told in INDEX["files"].values())


def test_every_block_is_in_it() -> None:
    files = [gsx.ModelFile.load(entry.made) for entry in KEPT.values()]
    blocks = {each.module for file in files for each in file.insertions()}
    assert blocks >= set(INDEX["catalogue"])


@pytest.mark.parametrize("key", KEPT)
def test_it_is_what_was_recorded(key: str, tmp_path: Path) -> None:
    """Its insertions can be read and verified; without them it is the original to the byte."""
    entry, told = KEPT[key], INDEX["files"][key]
    path = read(entry, tmp_path)
    original = corpus.host(entry.host).read_bytes()
    assert corpus.sha256(path.read_bytes()) == told["sha256"]
    assert corpus.sha256(original) == told["original"]
    model = gsx.ModelFile.load(path)
    assert [each.id for each in model.insertions()] == told["insertions"]
    report = gsx.verify(model, providers=["cpu"], seeds=1, original=original, trust=corpus.TRUSTED).require()
    assert report.rest.passed
    assert [each.id for each in report.insertions] == told["insertions"]
    assert gsx.remove(model).to_bytes() == original


@pytest.mark.parametrize("key", [key for key, told in INDEX["files"].items() if len(told["insertions"]) > 1])
def test_one_can_be_taken_out_and_the_others_stay(key: str) -> None:
    first, *others = INDEX["files"][key]["insertions"]
    model = gsx.Recipe.load(ENTRIES[key].recipe).apply(corpus.host(ENTRIES[key].host))
    left = gsx.remove(model, first)
    assert [each.id for each in left.insertions()] == others
    assert gsx.remove(left, others).to_bytes() == corpus.host(ENTRIES[key].host).read_bytes()


@pytest.mark.parametrize("key", ENTRIES)
def test_its_recipe_makes_it_again(key: str) -> None:
    entry, told = ENTRIES[key], INDEX["files"][key]
    again = gsx.Recipe.load(entry.recipe).apply(corpus.host(entry.host))
    assert [each.id for each in again.insertions()] == told["insertions"]
    if key not in MEASURED:
        check(key, corpus.sha256(again.to_bytes()), told["sha256"])


OF_AN_EARLIER_EDITION = [key for key in ENTRIES if changes.reason(key) == changes.EDITION]
"""files with a block that has another form today"""


@pytest.mark.parametrize("key", OF_AN_EARLIER_EDITION)
def test_in_the_first_edition_a_recipe_makes_the_same_bytes(key: str) -> None:
    """What was inserted in it is written once more in it, by `verify` for one."""
    recipe, host = gsx.Recipe.load(ENTRIES[key].recipe), gsx.ModelFile.load(corpus.host(ENTRIES[key].host))
    made, _ = carry_out(host, recipe.requests, edition=1)
    assert corpus.sha256(made.to_bytes()) == INDEX["files"][key]["sha256"]


@pytest.mark.parametrize("key", [key for key in OF_AN_EARLIER_EDITION if key in KEPT])
def test_blocks_of_an_earlier_edition_are_adopted(key: str, tmp_path: Path) -> None:
    bare = onnx.load(read(ENTRIES[key], tmp_path))
    del bare.metadata_props[:]
    adopted = gsx.adopt(bare, ENTRIES[key].recipe)
    assert [(each.id, each.edition) for each in adopted.insertions()] == [
        (id, 1) for id in INDEX["files"][key]["insertions"]
    ]
    assert gsx.verify(adopted, providers=["cpu"], seeds=1).passed


@pytest.mark.parametrize("name", calls.CALLS)
def test_a_python_call_gives_what_it_gave(name: str) -> None:
    check(name, corpus.plain(calls.CALLS[name]()), INDEX["calls"][name])


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_a_command_line_does_what_it_did(name: str, tmp_path: Path) -> None:
    now, before = commands.run(name, tmp_path), INDEX["commands"][name]
    form = now.pop("json", None)
    assert "json" not in before or commands.covers(form, before["json"])  # what failed printed none, and may now
    check(name, now, {key: value for key, value in before.items() if key != "json"})


def test_requests_cover_what_they_say() -> None:
    asked = requests()
    assert len(asked) > 200
    assert {each.model for each in asked} == set(MODELS)
    assert {each.arguments["module"] for each in asked} == set(INDEX["catalogue"])
    assert {each.arguments["target"] for each in asked} == {"tensorrt", "onnxruntime", "dla"}
    assert {each.arguments["precision"] for each in asked} == {"safe", "site", "fp32", "fp16"}
    lowerings = {(each.arguments["module"], each.arguments.get("lowering")) for each in asked}
    for variant, facts in INDEX["catalogue"].items():
        assert len(facts["lowerings"]) == 1 or lowerings.issuperset((variant, each) for each in facts["lowerings"])


def test_requests_give_the_bytes_that_they_gave_in_the_first_edition() -> None:
    asked = [
        each for each in requests() if each.model == corpus.EXAMPLE and changes.reason(each.key) == changes.EDITION
    ]
    assert len(asked) > 20
    for request in asked:
        host = gsx.ModelFile.load(corpus.host(corpus.EXAMPLE))
        made, _ = carry_out(host, gsx.Recipe.of([request.arguments]).requests, edition=1)
        assert corpus.sha256(made.to_bytes()) == INDEX["requests"][request.key], request.key


def test_requests_on_the_example_give_the_bytes_that_they_gave() -> None:
    """The requests on the other models are compared with compare.py."""
    asked = [each for each in requests() if each.model == corpus.EXAMPLE]
    for request, now in zip(asked, results(asked), strict=True):
        check(request.key, now, INDEX["requests"][request.key])


def test_every_change_is_one_of_something_recorded() -> None:
    recorded = [name for section in ("files", "calls", "commands", "requests") for name in INDEX[section]]
    for pattern in changes.CHANGED:
        assert any(changes.matches(pattern, name) for name in recorded), pattern
