"""Running the command line: the installed command in a process of its own, or `main` in this one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphsurgery.cli.main import main

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"
COMMAND = Path(sys.executable).with_name("graphsurgery")
PREFIX = "graphsurgery: error: "
PROGRESS = re.compile(r"^graphsurgery: \w+: (\d+ of \d+ \w+, )?\d+ s\n", re.MULTILINE)
"""what a command says every ten seconds; on a busy machine any of them can take as long"""


@dataclass(frozen=True)
class Ended:
    """How a run of the command line ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    def error(self, code: int) -> str:
        """The one sentence on standard error of a run that failed with this code; a wrong selector with the part that
        is wrong marked may stand below it.
        """
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith(PREFIX)]
        assert len(lines) == 1, self.err
        below = self.err.partition(lines[0] + "\n")[2].splitlines()
        assert not below or (len(below) == 2 and re.fullmatch(r"  .*", below[0]) and re.fullmatch(r" +\^+", below[1]))
        return lines[0].removeprefix(PREFIX)

    def sentence(self, code: int) -> str:
        """As `error`, for a run that printed nothing else."""
        assert self.out == b""
        assert self.err.startswith(PREFIX), self.err
        return self.error(code)


Run = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the small detector in it, as detector.onnx."""
    where = tmp_path / "work"
    where.mkdir()
    shutil.copy(DETECTOR, where / "detector.onnx")
    return where


@pytest.fixture
def command(folder: Path) -> Run:
    """Run the installed command in `folder`. ``stdin``: bytes through a pipe, or an open file."""

    def run(*arguments: str | Path, stdin: Any = subprocess.DEVNULL, **options: Any) -> Ended:
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        options = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 300, **options}
        done = subprocess.run([COMMAND, *map(str, arguments)], **given, **options)
        return Ended(done.returncode, done.stdout or b"", PROGRESS.sub("", (done.stderr or b"").decode()))

    return run


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run the command line in this process, in `folder`, with nothing on standard input: faster than `command`."""
    monkeypatch.chdir(folder)

    def run(*arguments: str | Path) -> Ended:
        capfdbinary.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        return Ended(code, captured.out, PROGRESS.sub("", captured.err.decode()))

    return run


@pytest.fixture
def snapshot(folder: Path) -> Callable[[], Mapping[str, object]]:
    """What lies in `folder`: every path with its bytes and its time of change."""

    def take() -> Mapping[str, object]:
        found: dict[str, object] = {}
        for path in sorted(folder.rglob("*")):
            status = path.lstat()
            content: object = os.readlink(path) if path.is_symlink() else "folder"
            if path.is_file() and not path.is_symlink():
                mode = status.st_mode
                path.chmod(0o600)
                content = path.read_bytes()
                path.chmod(mode & 0o7777)
            found[str(path.relative_to(folder))] = (content, status.st_mode, path.is_file() and status.st_mtime_ns)
        return found

    return take


@pytest.fixture
def unchanged(snapshot: Callable[[], Mapping[str, object]]) -> Callable[[], Any]:
    """Call it when all files are in place: at the end of the test they have to be as they were."""
    state: dict[str, Mapping[str, object]] = {}

    class Guard:
        def __enter__(self) -> None:
            state["before"] = snapshot()

        def __exit__(self, *error: object) -> None:
            if error[0] is None:
                assert snapshot() == state["before"]

    return Guard


def value(name: str, kind: int, shape: list[int | str | None] | None) -> onnx.ValueInfoProto:
    """A tensor as a graph input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture
def small_model(folder: Path) -> Callable[..., Path]:
    """Write a model of two nodes, `/a/Op` and `/b/Op`, through which one tensor of any type and shape passes."""

    def write(
        name: str = "small.onnx",
        *,
        kind: int = TensorProto.FLOAT,
        shape: list[int | str | None] | None = None,
        external: str | None = None,
    ) -> Path:
        shape = [1, 8, 4, 4] if shape is None else shape
        nodes = [
            helper.make_node("Identity", ["x"], ["y"], name="/a/Op"),
            helper.make_node("Identity", ["y"], ["z"], name="/b/Op"),
        ]
        weight = numpy_helper.from_array(np.ones((8, 4), np.float32), "w")
        if external is not None:
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value=external)
        nodes.append(helper.make_node("Identity", ["w"], ["unused"], name="/w/Op"))
        graph = helper.make_graph(nodes, "small", [value("x", kind, shape)], [value("z", kind, shape)], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = folder / name
        path.write_bytes(model.SerializeToString())
        return path

    return write
