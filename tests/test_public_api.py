"""The public face: what `import graphsurgery` gives, how it is loaded, and that documents and exports agree."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import typing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

import graphsurgery as gsx

ROOT = Path(__file__).parents[1]
DETECTOR = ROOT / "examples" / "01_first_insertion" / "detector.onnx"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("examples/*/*.md")),
]
FOLDERS = {path.name for path in (ROOT / "graphsurgery").iterdir() if (path / "__init__.py").exists()}
COLLIDING = sorted(FOLDERS & set(gsx.__all__))
FACES = {"torch"}
"""folders that documents import as a whole"""
GROUPS = {"patterns", "detectors"}
"""entry-point groups that documents name"""


def run(code: str) -> str:
    """What a fresh Python prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout


# ---------------------------------------------------------------------- documents and exports


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_documents_use_is_exported(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"\bgsx\.([A-Za-z_]\w*)", text))
    for names in re.findall(r"^\s*from graphsurgery import ([\w, ]+)", text, re.MULTILINE):
        used |= {name.split(" as ")[0].strip() for name in names.split(",")} - FACES
    dotted = (
        set(re.findall(r"(?<![\w/\"'-])graphsurgery\.([A-Za-z_]\w*)(?=[\w.(]*)", text))
        - GROUPS
        - FOLDERS
        - {"insertion"}
    )
    assert used | dotted <= set(gsx.__all__)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_documents_import_from_folders_is_in_their_faces(path: Path) -> None:
    assert misplaced(path.read_text(encoding="utf-8")) == []


def misplaced(text: str) -> list[str]:
    """The imports from modules of the package that stand for a public name, or for one that no face of a folder has."""
    found = []
    for module, listed in re.findall(r"^\s*from graphsurgery\.([\w.]+) import ([\w, ]+)", text, re.MULTILINE):
        home = importlib.import_module(f"graphsurgery.{module}")
        names = {name.split(" as ")[0].strip() for name in listed.split(",")}
        found += [f"{module}.{name}" for name in sorted(names) if name in gsx.__all__ or name not in home.__all__]
    return found


def test_the_patterns_above_find_something() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert "gsx.insert" in text
    assert re.search(r"^\s*from graphsurgery import", text, re.MULTILINE)
    assert misplaced("from graphsurgery.recognition import Pattern, Chain\n") == ["recognition.Pattern"]
    assert misplaced("    from graphsurgery.recognition import Chain, Nothing\n") == ["recognition.Nothing"]


@pytest.mark.parametrize("name", gsx.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(gsx, name))


def classes_in(annotation: Any) -> typing.Iterator[type]:
    """Classes of this package that a return annotation names."""
    for part in (annotation, *typing.get_args(annotation)):
        if isinstance(part, type) and part.__module__.startswith("graphsurgery."):
            yield part


def test_every_class_that_a_public_function_returns_is_public() -> None:
    public = {id(getattr(gsx, name)) for name in gsx.__all__}
    found: dict[str, type] = {}
    for name in gsx.__all__:
        function = getattr(gsx, name)
        if inspect.isfunction(function):
            stated = inspect.get_annotations(function)["return"]
            module = sys.modules[function.__module__]
            assert isinstance(stated, str)
            known = {**vars(gsx), **{each: getattr(gsx, each) for each in gsx.__all__}, **vars(module)}
            found |= {each.__name__: each for each in classes_in(eval(stated, known))}
    found |= {"Site": gsx.Site, "Insertion": type(gsx.insert(DETECTOR, "simam", after="/model.8").insertions()[0])}
    assert len(found) >= 8
    assert [name for name, kind in found.items() if id(kind) not in public] == []


@pytest.mark.parametrize("name", [name for name in gsx.__all__ if inspect.isfunction(getattr(gsx, name))])
def test_docstrings_of_functions_are_in_sections(name: str) -> None:
    function = getattr(gsx, name)
    text = inspect.getdoc(function) or ""
    parameters = inspect.signature(function).parameters
    if parameters:
        assert "\nParameters\n----------\n" in text
    assert "\nReturns\n-------\n" in text or "\nRaises\n------\n" in text
    for parameter in parameters:
        assert re.search(rf"^(\w+, )*{parameter}(, \w+)*:$", text, re.MULTILINE), parameter
    assert not re.search(r"(?<![\w-])--[a-z]", text), "a flag of the command line"


@pytest.mark.parametrize("folder", sorted(FOLDERS - {"cli"}))
def test_every_folder_has_a_face(folder: str) -> None:
    face = importlib.import_module(f"graphsurgery.{folder}")
    assert face.__all__
    assert [name for name in face.__all__ if not hasattr(face, name)] == []


# ---------------------------------------------------------------------- how it is loaded


def test_importing_it_loads_nothing_heavy() -> None:
    loaded = set(run("import sys, graphsurgery; print(*sys.modules)").split())
    heavy = {"numpy", "onnx", "onnx_graphsurgeon", "yaml", "rich", "typer", "graphsurgery.api", "graphsurgery.messages"}
    assert not loaded & heavy


def test_folders_and_functions_of_one_name_do_not_disturb_each_other() -> None:
    assert COLLIDING == ["bench", "blocks", "diff", "find", "outline", "sweep"]
    for name in COLLIDING:
        code = f"""
import graphsurgery.{name}
from graphsurgery.{name} import {name if name != "blocks" else "Block"}
import graphsurgery, sys
assert callable(graphsurgery.{name}), graphsurgery.{name}
from graphsurgery import {name} as function
assert function is graphsurgery.{name}
assert sys.modules["graphsurgery.{name}"].__all__
print("good")"""
        assert run(code) == "good\n"


def test_all_at_once_dir_help_and_reload() -> None:
    code = """
from graphsurgery import *
assert callable(insert) and callable(diff) and callable(bench)
import graphsurgery, importlib
assert set(graphsurgery.__all__) <= set(dir(graphsurgery))
before = graphsurgery.insert
again = importlib.reload(graphsurgery)
assert again is graphsurgery and graphsurgery.insert is before and callable(graphsurgery.outline)
from graphsurgery.patterns.attention import simam
print(__version__)"""
    assert run(code) == f"{gsx.__version__}\n"
    shown = pydoc.render_doc(gsx)
    for name in ("insert", "outline", "ModelFile"):
        assert name in shown


def test_public_names_can_be_replaced_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    insert = gsx.insert
    monkeypatch.setattr(gsx, "insert", len)
    assert gsx.insert is len
    monkeypatch.undo()
    assert gsx.insert is insert


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'insrt'"):
        gsx.insrt  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'insrt'"):
        exec("from graphsurgery import insrt", {})


def test_what_functions_return_can_be_pickled() -> None:
    made = gsx.insert(DETECTOR, "simam", after="/model.8")
    (insertion,) = made.insertions()
    found = gsx.sites(DETECTOR, "C2f[-1]")
    for value in (insertion, gsx.info(made), found, gsx.Request("simam", ("/model.8",))):
        assert pickle.loads(pickle.dumps(value)) == value
    assert type(pickle.loads(pickle.dumps(found))) is gsx.Sites


def test_the_homes_are_those_that_type_checkers_see() -> None:
    source = (ROOT / "graphsurgery" / "__init__.py").read_text(encoding="utf-8")
    static = dict(re.findall(r"^    from \.(\w+) import (.+)$", source, re.MULTILINE))
    assert {home: " ".join(names.split(", ")) for home, names in static.items()} == gsx._HOMES


def test_everything_public_is_in_all() -> None:
    public = {n for n in dir(gsx) if not n.startswith("_") and not isinstance(getattr(gsx, n), ModuleType)}
    assert public - {"annotations"} == {name for name in gsx.__all__ if name not in ("errors", "__version__")}
    assert len(gsx.__all__) == len(set(gsx.__all__))


# ---------------------------------------------------------------------- what the functions do


def test_sites_are_a_list_that_notebooks_show() -> None:
    found = gsx.sites(DETECTOR)
    assert isinstance(found, list)
    assert found[:1][0].path == "/model.0"
    assert isinstance(found[:1], gsx.Sites)
    assert "<td>/model.0</td>" in found._repr_html_()
    (last,) = gsx.sites(DETECTOR, "C2f[-1]")
    assert last.path == "/model.21"
    with pytest.raises(gsx.errors.SelectorError):
        gsx.sites(DETECTOR, "/model.80")


def test_apply_takes_a_path_or_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("- {module: simam, after: /model.8}")
    expected = gsx.insert(DETECTOR, "simam", after="/model.8").to_bytes()
    assert gsx.apply(path, DETECTOR).to_bytes() == expected
    assert gsx.apply(gsx.Recipe.load(path), DETECTOR).to_bytes() == expected


def test_check_says_what_tensorrt_takes() -> None:
    report = gsx.check(gsx.insert(DETECTOR, "simam", after="/model.8"), "8.6")
    assert not report.stops
    assert list(report.insertions) == ["model.8.simam"]


@pytest.mark.parametrize("name", ["insert", "diff"])
def test_a_public_name_can_be_patched_before_and_after_its_first_use(name: str) -> None:
    original = getattr(gsx, name)
    vars(gsx).pop(name)
    for _ in range(2):
        with mock.patch(f"graphsurgery.{name}") as substitute:
            assert getattr(gsx, name) is substitute
        assert getattr(gsx, name) is original


def test_sites_are_shown_in_a_line_each() -> None:
    found = gsx.sites(DETECTOR)
    lines = repr(found).splitlines()
    assert [line.split()[0] for line in lines] == [site.path for site in found]
    assert len({line.index("[") for line in lines}) == 1, "in columns"
    typed = gsx.Sites([replace(found[0], type="Conv\x1b"), replace(found[1], path=None, tensor="t", type=None)])
    assert repr(typed).splitlines() == [
        rf"/model.0  Conv\x1b  {list(found[0].shape)}",
        rf"tensor:t            {list(found[1].shape)}",
    ]
    assert repr(found[:0]) == "no sites"


def test_insertions_and_reports_are_shown_in_a_line() -> None:
    model = gsx.insert(DETECTOR, "simam", after="/model.8")
    assert repr(model.insertions()) == "[<Insertion model.8.simam: simam after /model.8>]"
    (before,) = gsx.insert(DETECTOR, "simam", before="/model.9").insertions()
    assert repr(before).endswith(": simam before /model.9>")
