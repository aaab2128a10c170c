"""The commands and the Python in the README, executed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *ROOT.glob("examples/*/*.md"),
]


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples in it, in which the commands run one after the other."""
    made = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", made / "examples")
    return made


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_session(folder: Path) -> None:
    commands = [line.removeprefix("$ ") for block in fenced("console") for line in block.splitlines()]
    assert len(commands) >= 10
    printed = {command: run(command, folder) for command in commands}
    (shown,) = fenced("text")
    insert = next(command for command in commands if command.endswith("-o simam.onnx"))
    assert without_numbers(printed[insert]) == without_numbers(shown)


def test_the_commands_of_the_example(folder: Path) -> None:
    place = folder / "examples" / "01_first_insertion"
    commands = re.findall(r"^    ((?:graphsurgery|cmp) .*)$", (place / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        run(command, place)


def test_the_commands_that_draw(folder: Path) -> None:
    page = (ROOT / "docs" / "sites.md").read_text()
    commands = re.findall(r"^    (graphsurgery sites .* --picture .*)$", page, re.MULTILINE)
    assert len(commands) >= 3
    place = folder / "examples" / "01_first_insertion"
    for command in commands:
        assert "picture: detector." in run(f"{command} --force", place)


def without_numbers(text: str) -> list[str]:
    """The lines, with errors and shares of tolerances, which differ between machines, taken out."""
    return re.sub(r"max error \S+, \S+ of", "max error, of", text).splitlines()


def test_the_python(folder: Path) -> None:
    for program in fenced("python"):
        (folder / "program.py").write_text(program)
        run(f"{sys.executable} program.py", folder)


def test_the_table_of_blocks_is_current() -> None:
    from graphsurgery.cards.listing import in_order_of_demand

    rows = [
        f"| `{block.name}` | {block.title} | {', '.join(f'`{variant}`' for variant in block.variants)} |"
        for block in in_order_of_demand()
    ]
    shown = README.partition("| block | name | variants |\n|---|---|---|\n")[2].partition("\n<!-- end -->")[0]
    assert shown.splitlines() == [row.replace("|  |", "| |") for row in rows]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target
