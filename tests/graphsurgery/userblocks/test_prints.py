"""Modules of the user's own that print: standard output is for the result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

import graphsurgery
from tests import models

COMMAND = Path(sys.executable).with_name("graphsurgery")
MODULE = "talkative:Gate"
TALKATIVE = """
import os
import sys

from torch import nn

kept = sys.stdout
print("imported")


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        print("made")
        os.system("echo made by another program")
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        print("called")
        kept.write("called, past the present stream\\n")
        os.write(1, b"called, past every stream\\n")
        return x * self.conv(x).sigmoid()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    (tmp_path / "m.onnx").write_bytes(models.detector().SerializeToString())
    return tmp_path


def run(folder: Path, *arguments: str, stdin: IO[bytes] | None = None) -> tuple[bytes, str]:
    done = subprocess.run([COMMAND, *arguments], cwd=folder, stdin=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.decode()


def test_a_model_through_a_pipe(folder: Path) -> None:
    with open(folder / "m.onnx", "rb") as source:
        out, err = run(folder, "insert", "--module", MODULE, "--after", "/model.2", stdin=source)
    (folder / "o.onnx").write_bytes(out)
    models.valid(out)
    assert graphsurgery.remove(out).to_bytes() == (folder / "m.onnx").read_bytes()
    for words in ("imported", "made", "made by another", "called", "past the present", "past every", "written to"):
        assert words in err
    out, err = run(folder, "verify", "o.onnx", "--trust", MODULE, "--json")
    assert json.loads(out)["passed"]
    assert "called, past every stream" in err


def test_json_and_cards(folder: Path) -> None:
    out, _ = run(folder, "insert", "m.onnx", "--module", MODULE, "--after", "/model.2", "-o", "o.onnx", "--json")
    assert json.loads(out)["insertions"][0]["parity"]["passed"]
    out, _ = run(folder, "blocks", MODULE, "--json")
    assert json.loads(out)["reference"] == MODULE
    out, err = run(folder, "blocks", MODULE)
    assert out.startswith(b"gate: Gate\n")
    assert b"called" not in out
    assert "called" in err
