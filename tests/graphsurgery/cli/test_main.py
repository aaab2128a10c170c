"""The frame of the command line: help, version, usage errors, `diff`, and ends from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import graphsurgery as gsx
from graphsurgery.cli import main as module
from graphsurgery.cli.main import application, main

COMMANDS = ("insert", "remove", "sites", "blocks", "verify", "bench", "apply", "adopt", "diff", "sweep", "tensorrt")


def test_version(command: Any) -> None:
    assert command("--version").text == f"graphsurgery {version('graphsurgery')}\n"


@pytest.mark.parametrize("arguments", [("--help",), ("-h",)])
def test_help_names_every_command(cli: Any, arguments: tuple[str, ...]) -> None:
    ended = cli(*arguments)
    assert (ended.code, ended.err) == (0, "")
    commands = ended.text.partition("Commands:\n")[2]
    for name in COMMANDS:
        assert f"  {name} " in commands
    assert "..." not in commands  # every command's first line fits


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(cli: Any, name: str) -> None:
    ended = cli(name, "--help")
    assert ended.code == 0
    assert f"Usage: graphsurgery {name}" in ended.text


def test_without_a_command(cli: Any) -> None:
    ended = cli()
    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.startswith("Usage: graphsurgery")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inser",), "no such command 'inser'"),
        (("insert", "--modul", "se"), "no such option"),
        (("insert", "--after", "/model.8"), "missing option '--module'"),
        (("insert", "--module", "se"), "where should se go? give --after SELECTOR or --before SELECTOR"),
        (("diff", "detector.onnx"), "missing argument 'B'"),
        (("apply",), "missing argument 'RECIPE'"),
        (("sites", "a", "b", "c"), "unexpected extra argument"),
        (("sites", "detector.onnx", "--depth", "deep"), "invalid value for '--depth'"),
        (("verify", "detector.onnx", "--seeds"), "requires an argument"),
    ],
)
def test_usage_errors_are_one_sentence(cli: Any, arguments: tuple[str, ...], said: str) -> None:
    assert said in cli(*arguments).sentence(2)


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def broken(*arguments: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(gsx.ModelFile, "load", broken)
    with pytest.raises(AssertionError, match="a bug"):
        main(["sites", str(folder / "detector.onnx")])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 3, "not enough memory"),
        (OSError(5, "Input/output error", "disk.onnx"), 2, "disk.onnx: Input/output error"),
        (gsx.errors.InvalidModel("two\nlines"), 1, "two\\nlines"),
    ],
)
def test_other_ends(cli: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str) -> None:
    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(gsx.ModelFile, "load", failing)
    assert said in cli("sites", "detector.onnx").sentence(code)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs to see when the handler is in place")
def test_terminated(folder: Path) -> None:
    """SIGTERM from when it is caught until the model is being read, from a pipe that nobody closes."""
    for delay in (0, 0.1, 0.4):
        assert ended_by(signal.SIGTERM, delay, folder) == (143, b"")
    assert os.listdir(folder) == ["detector.onnx"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs to see when the handler is in place")
def test_interrupted_during_the_start(folder: Path) -> None:
    """No trace, from when the program has signals: Python itself starts before, and shows one."""
    for delay in (0, 0.01, 0.03, 0.1, 0.2):
        assert ended_by(signal.SIGINT, delay, folder) == (130, b"")


def ended_by(number: int, delay: float, folder: Path) -> tuple[int, bytes]:
    """The exit code and standard error of a command that gets a signal, ``delay`` seconds after it catches signals."""
    command = [sys.executable, "-m", "graphsurgery", "sites"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background job ignores SIGINT
    )
    status = Path(f"/proc/{process.pid}/status")
    deadline = time.monotonic() + 60
    caught = 1 << (signal.SIGXCPU - 1)  # the last one that it arranges to catch
    while time.monotonic() < deadline:
        line = next((text for text in status.read_text().splitlines() if text.startswith("SigCgt")), "SigCgt: 0")
        if int(line.split()[1], 16) & caught:
            break
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    return process.returncode, error


def test_main_module_states_its_exit_codes() -> None:
    assert "Exit codes" in (module.__doc__ or "")
    assert "Exit codes" in str(application().info.epilog)


def test_diff(cli: Any, folder: Path) -> None:
    gsx.insert(folder / "detector.onnx", "simam", after="/model.8").save(folder / "changed.onnx")
    ended = cli("diff", "detector.onnx", "changed.onnx")
    assert ended.code == 0
    lines = ended.text.splitlines()
    assert lines[0] == "nodes: 5 added, 1 changed"
    assert "  ~ /model.9/cv1/conv/Conv  Conv" in lines
    assert "      input 0: /model.8/cv2/act/Mul_output_0 -> /model.8/simam/Mul_1_output_0" in lines
    assert cli("diff", "detector.onnx", "changed.onnx", "--exit-code", "-q").code == 1
    data = json.loads(cli("diff", "changed.onnx", "detector.onnx", "--json").out)
    assert (data["a"], data["b"], data["identical"]) == ("changed.onnx", "detector.onnx", False)
    assert len(data["nodes"]["removed"]) == 5


def test_diff_of_equals(cli: Any) -> None:
    ended = cli("diff", "detector.onnx", "./detector.onnx", "--exit-code")
    assert (ended.code, ended.text) == (0, "detector.onnx and ./detector.onnx are identical\n")


def test_diff_with_standard_input(command: Any, folder: Path) -> None:
    ended = command("diff", "-", "detector.onnx", stdin=(folder / "detector.onnx").read_bytes())
    assert (ended.code, ended.text) == (0, "- and detector.onnx are identical\n")
    assert "only one of the two" in command("diff", "-", "-").sentence(2)


def test_diff_of_bad_files(cli: Any, folder: Path) -> None:
    (folder / "text.onnx").write_text("hello")
    assert "is a text file" in cli("diff", "detector.onnx", "text.onnx").sentence(2)
    assert "there is no file" in cli("diff", "gone.onnx", "detector.onnx").sentence(2)
