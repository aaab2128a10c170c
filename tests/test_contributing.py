"""The section "Add a block" of CONTRIBUTING.md, followed to the letter in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Add a block\n")[2].partition("\n## ")[0]
FILE = re.compile(r"`(?P<name>[\w./]+\.py)`:\n\n   ```python\n(?P<text>.*?)^   ```$", re.S | re.M)
SHELL = re.compile(r"^   ```sh\n(.*?)^   ```$", re.S | re.M)
COPIED = ("graphsurgery", "patterns", "tests", "benchmarks", "docs", "examples", "README.md", "pyproject.toml")
GENERATED = {"README.md", "docs/blocks.md", "docs/tensorrt.md", "patterns/attention/facts.json"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the files of the page."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "compatibility"))
        else:
            shutil.copy(source, folder / name)
    for match in FILE.finditer(SECTION):
        (folder / match["name"]).write_text(textwrap.dedent("   " + match["text"].lstrip()), encoding="utf-8")
    return folder


def commands() -> list[str]:
    return [line.strip() for block in SHELL.findall(SECTION) for line in block.splitlines()]


def test_a_block_is_three_files() -> None:
    folders = [str(Path(match["name"]).parent) for match in FILE.finditer(SECTION)]
    assert folders == ["patterns/modules", "patterns/attention", "tests/patterns/attention/cases"]


def test_the_commands_of_the_page(checkout: Path) -> None:
    said = {command: run(command, checkout) for command in commands()}
    changed = {name for name in GENERATED if (checkout / name).read_text() != (ROOT / name).read_text()}
    assert changed == GENERATED
    assert "| `peakgate` | Peak gate | |" in (checkout / "README.md").read_text()
    first, second = (text for command, text in said.items() if "pytest" in command)
    assert int(passed(first)) > 30
    assert int(passed(second)) == 1
    (inserted,) = (text for command, text in said.items() if " insert " in command)
    assert "parity on cpu: passed" in inserted
    (verified,) = (text for command, text in said.items() if " verify " in command)
    assert "model.8.peakgate" in verified
    assert "FAILED" not in verified


def passed(summary: str) -> str:
    found = re.search(r"(\d+) passed", summary)
    assert found, summary
    assert "failed" not in summary
    return found[1]


def run(command: str, folder: Path) -> str:
    """A command's standard output, in the copy; ``python`` and ``graphsurgery`` are those of this environment."""
    command = command.replace("python -m pytest", f"{sys.executable} -m pytest -n0 -q -p no:cacheprovider")
    command = re.sub(r"^python ", f"{sys.executable} ", command)
    command = re.sub(r"^graphsurgery ", f"{Path(sys.executable).with_name('graphsurgery')} ", command)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    ended = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout
