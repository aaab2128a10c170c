"""docs/ARCHITECTURE.md is true to the code: every folder once, in the order of imports, and every name exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.test_import_order import ORDER

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "graphsurgery"
FOLDERS = [name for name in ORDER if (PACKAGE / name).is_dir()]
PICTURE, WALK = re.findall(r"^## .*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[:2]
NAMED = re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", PAGE)


def test_the_order_has_every_folder() -> None:
    assert set(FOLDERS) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_the_picture_has_every_folder_once_and_in_order() -> None:
    lines = PICTURE.partition("```text\n")[2].splitlines()
    drawn = [match[1] for line in lines if (match := re.match(r"[│ ]+([a-z]+)(?= {2})", line))]
    assert drawn == FOLDERS


def test_the_walk_has_every_folder_once_and_its_steps_are_those_of_the_picture() -> None:
    steps = {name: int(number) for number, name in re.findall(r"^(\d+)\. \*\*(\w+)\*\*", WALK, re.MULTILINE)}
    assert list(steps.values()) == list(range(1, len(steps) + 1))
    assert steps == {name: int(number) for name, number in re.findall(r"^[│ ]+([a-z]+) +(\d+) ", PICTURE, re.MULTILINE)}
    assert sorted(re.findall(r"\*\*(\w+)\*\*", WALK)) == sorted(FOLDERS)


@cache
def defined(path: Path) -> set[str]:
    """Functions and classes of a file, and methods as ``Class.method``."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[":".join(filter(None, each)) for each in NAMED])
def test_what_is_named_exists(file: str, name: str) -> None:
    path = next((base / file for base in (PACKAGE, ROOT) if (base / file).exists()), None)
    assert path is not None
    assert not name or name in defined(path)
