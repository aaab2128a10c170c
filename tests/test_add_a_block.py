"""docs/add-a-block.md, followed to the letter."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "add-a-block.md"
DETECTOR = ROOT / "examples" / "01_first_insertion" / "detector.onnx"
FILE = re.compile(
    r"`(?P<name>[\w./]+\.(?:py|toml))`:\n\n(?P<indent> *)```\w+\n(?P<text>.*?)^(?P=indent)```$", re.S | re.M
)
SHELL = re.compile(r"^(?P<indent> *)```sh\n(?P<text>.*?)^(?P=indent)```$", re.S | re.M)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page, and the model that its commands name."""
    folder = tmp_path_factory.mktemp("package")
    for match in FILE.finditer(PAGE.read_text(encoding="utf-8")):
        path = folder / match["name"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(match["text"]), encoding="utf-8")
    shutil.copy(DETECTOR, folder / "detector.onnx")
    return folder


def test_the_page_has_its_files(package: Path) -> None:
    names = {str(path.relative_to(package)) for path in package.rglob("*.*")}
    assert names >= {"gatepack/__init__.py", "gatepack/block.py", "gatepack/module.py", "pyproject.toml"}


def test_the_commands_of_the_page(package: Path) -> None:
    (match,) = SHELL.finditer(PAGE.read_text(encoding="utf-8"))
    commands = [shlex.split(line) for line in textwrap.dedent(match["text"]).splitlines()]
    assert commands[0] == ["pip", "install", "."]
    installed = package / "installed"  # instead of the environment that the tests run in
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", f"--target={installed}"]
    _run([sys.executable, "-m", "pip", "install", *offline, "."], package)
    shown, inserted, same, verified = [_run(command, package, installed) for command in commands[1:]]
    assert "channelgate: Channel gate" in shown
    assert "parity on cpu: passed" in inserted
    assert "passed" in same
    assert "model.8.channelgate" in verified
    assert "FAILED" not in inserted + same + verified


def _run(command: list[str], folder: Path, path: Path | None = None) -> str:
    if command[0] == "graphsurgery":
        command = [str(Path(sys.executable).with_name("graphsurgery")), *command[1:]]
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
