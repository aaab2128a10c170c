"""What the pages of the documentation show: their fences in order, and a folder in which these are run.

- ``console``: commands after ``$ ``, and below each what it prints, if that is shown. ``...`` in a line of its own
  stands for lines that are left out, and at the end of a line for the rest of it. What ends in an error is shown with
  the error.
- ``python``: programs, each of its own.
- ``yaml`` that begins with ``# NAME``: a file of that name.
- ``bash`` and ``py``: as ``console`` and ``python``, not run; a comment ``<!-- not run: REASON -->`` stands in front of
  each.
- everything else: text.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from graphsurgery.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [path for places in ("*.md", "docs/*.md", "examples/**/*.md") for path in sorted(ROOT.glob(places))]
FENCE = re.compile(
    r"^(?:(?P<indent>[ ]*)<!--[ ]not[ ]run:[ ](?P<reason>[^\n]+?)[ ]-->\n)?"
    r"^(?P<margin>[ ]*)```(?P<language>\w*)\n(?P<text>.*?)^(?P=margin)```$",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
DETECTOR = ROOT / "examples" / "01_first_insertion" / "detector.onnx"
TRAINED = ROOT / "examples" / "05_attention_that_is_there" / "trained.onnx"
STANDS_FOR = ("detector.onnx", "yolov8n.onnx")
"""the names by which pages call the small detector, which has the layers of YOLOv8"""
_SHELL = re.compile(r"[|&;<>$`*?~#]")
_OMITTED = "..."


@dataclass(frozen=True)
class Fence:
    """One block of code in a page."""

    language: str
    text: str
    reason: str | None
    """why it is not run, as the page says"""


@dataclass(frozen=True)
class Step:
    """One command in a page."""

    command: str
    shown: tuple[str, ...]
    """the lines below it"""
    fails: bool
    """whether the page shows that it ends with another code than 0"""


def fences(page: Path) -> list[Fence]:
    """The fences of a page, in order."""
    found = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        text = re.sub(rf"^{match['margin']}", "", match["text"], flags=re.MULTILINE)
        found.append(Fence(match["language"], text, match["reason"]))
    return found


def prose(page: Path) -> str:
    """The text of a page without its fences."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def steps(text: str) -> Iterator[Step]:
    """The commands in a fence of the kind ``console``."""
    parts = [part.splitlines() for part in re.split(r"^\$ ", text, flags=re.MULTILINE) if part]
    for i, (command, *shown) in enumerate(parts):
        asked = i + 1 < len(parts) and parts[i + 1][0] == "echo $?" and parts[i + 1][1:] != ["0"]
        failed = any(line.startswith("graphsurgery: error:") for line in shown)
        yield Step(command, tuple(shown), asked or failed)


def shows(step: Step, printed: str) -> bool:
    """Whether a command printed what the page shows of it; figures that differ between machines apart."""
    if not step.shown:
        return True
    pattern = "".join(map(_pattern, _lines("\n".join(step.shown))))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))) is not None


def _pattern(line: str) -> str:
    if line == _OMITTED:
        return r"(?:.*\n)*?"
    return f"{re.escape(line.removesuffix(_OMITTED))}{'.*' if line.endswith(_OMITTED) else ''}\n"


def _lines(text: str) -> list[str]:
    text = re.sub(r"max error \S+, \S+ of", "max error, of", text)
    return [line.rstrip() for line in text.splitlines()]


class Session:
    """A folder with the small models and a few pictures in it, in which a page is followed.

    Parameters
    ----------
    inside:
        Whether commands of graphsurgery run in this process, which takes a fraction of the time.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], inside: bool
    ):
        self._folder, self._capture, self._inside = folder, capture, inside
        self._status = 0
        shutil.copytree(ROOT / "examples", folder / "examples")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("COLUMNS", "100")
        for name in STANDS_FOR:
            shutil.copy(DETECTOR, folder / name)
        shutil.copy(TRAINED, folder)
        _take_photos(folder / "photos")

    def follow(self, fence: Fence) -> None:
        """Run what a fence shows, and compare what is printed."""
        if fence.language == "yaml" and (named := re.match(r"# ([\w.-]+)\n", fence.text)):
            (self._folder / named[1]).write_text(fence.text, encoding="utf-8")
        if fence.language == "python":
            exec(compile(fence.text, "document", "exec"), {"__name__": "document"})
        for step in steps(fence.text) if fence.language == "console" else ():
            printed = self._run(step.command)
            assert bool(self._status) == step.fails or step.command == "echo $?", f"{step.command}\n{printed}"
            assert shows(step, printed), f"{step.command}\n{printed}"

    def _run(self, command: str) -> str:
        self._capture.readouterr()
        words = shlex.split(command) if not _SHELL.search(re.sub(r"'[^']*'", "", command)) else []
        if self._inside and words[:1] == ["graphsurgery"]:
            self._status = main(words[1:])
            captured = self._capture.readouterr()
            return captured.out + captured.err
        given = f"(exit {self._status}); {command}"
        done = subprocess.run(["bash", "-c", given], cwd=self._folder, capture_output=True, text=True, timeout=300)
        self._status = done.returncode
        return done.stdout + done.stderr


def _take_photos(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    for i, pixels in enumerate(coarse):
        Image.fromarray(pixels).resize((320, 320), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
