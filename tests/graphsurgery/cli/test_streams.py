"""Pipelines: a model on standard input, the result on standard output, and nothing else there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphsurgery as gsx

INSERT = ("insert", "--module", "simam", "--after", "/model.8")
FAST = (*INSERT, "--no-verify")


@pytest.fixture
def wanted(folder: Path) -> bytes:
    """The bytes that inserting SimAM behind /model.8 gives."""
    return gsx.insert(folder / "detector.onnx", "simam", after="/model.8").to_bytes()


def test_through_a_pipe(command: Any, folder: Path, wanted: bytes) -> None:
    ended = command(*INSERT, stdin=(folder / "detector.onnx").read_bytes())
    assert (ended.code, ended.out) == (0, wanted)
    assert "written to standard output" in ended.err


@pytest.mark.parametrize("arguments", [(), ("-",), ("-o", "-"), ("-", "-o", "-"), ("-o", "/dev/stdout")])
def test_redirected_files(command: Any, folder: Path, wanted: bytes, arguments: tuple[str, ...]) -> None:
    with open(folder / "detector.onnx", "rb") as source, open(folder / "out.onnx", "wb") as target:
        ended = command(*FAST, *arguments, stdin=source, stdout=target)
    assert ended.code == 0
    assert (folder / "out.onnx").read_bytes() == wanted


def test_the_shell_pipeline_of_the_manual(folder: Path, wanted: bytes) -> None:
    from .conftest import COMMAND

    line = f"'{COMMAND}' {' '.join(FAST)} -q < detector.onnx | '{COMMAND}' remove - --all -q > back.onnx"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=folder, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (folder / "back.onnx").read_bytes() == (folder / "detector.onnx").read_bytes()


def test_a_file_to_standard_output(command: Any, wanted: bytes) -> None:
    ended = command(*FAST, "detector.onnx", "-o", "-")
    assert (ended.code, ended.out) == (0, wanted)


def test_standard_input_to_a_file(command: Any, folder: Path, wanted: bytes) -> None:
    ended = command(*FAST, "-o", "out.onnx", stdin=(folder / "detector.onnx").read_bytes())
    assert ended.code == 0
    assert ended.text.endswith("written to out.onnx\n")
    assert (folder / "out.onnx").read_bytes() == wanted


def test_json_is_all_there_is_on_standard_output(command: Any) -> None:
    ended = command(*INSERT, "detector.onnx", "-o", "out.onnx", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["output"] == "out.onnx"


def test_json_goes_to_standard_error_when_the_model_goes_to_standard_output(command: Any, wanted: bytes) -> None:
    ended = command(*FAST, "detector.onnx", "-o", "-", "--json")
    assert ended.out == wanted
    assert json.loads(ended.err)["output"] == "-"


def test_quiet(command: Any, wanted: bytes) -> None:
    ended = command(*INSERT, "detector.onnx", "-o", "-", "-q")
    assert (ended.code, ended.out, ended.err) == (0, wanted, "")


def test_a_device_that_never_ends(command: Any) -> None:
    assert command("info", "/dev/zero").sentence(2) == "/dev/zero cannot be read: it is a device, not a file"


def test_a_failed_request_writes_nothing_to_standard_output(command: Any, folder: Path) -> None:
    model = (folder / "detector.onnx").read_bytes()
    assert "no module" in command("insert", "-m", "simam", "-a", "/model.99", stdin=model).sentence(2)


def test_external_data_of_a_piped_model_is_looked_for_in_the_current_folder(
    command: Any, small_model: Callable[..., Path], folder: Path
) -> None:
    path = small_model(external="weights.bin")
    (folder / "weights.bin").write_bytes(bytes(128))
    ended = command("insert", "-m", "simam", "-a", "/a", "--no-verify", stdin=path.read_bytes())
    assert ended.code == 0
    assert gsx.ModelFile.load(ended.out).insertions()[0].id == "a.simam"


def test_a_path_needs_an_output(command: Any) -> None:
    said = command(*FAST, "detector.onnx").sentence(2)
    assert said == "say where the result goes: -o FILE, or --in-place to replace the model"


def test_standard_streams_that_are_closed(command: Any, folder: Path) -> None:
    assert "standard input is closed" in command("sites", preexec_fn=lambda: os.close(0)).sentence(2)
    ended = command(*FAST, "detector.onnx", "-o", "-", preexec_fn=lambda: os.close(1))
    assert "standard output is closed" in ended.sentence(2)


def test_standard_output_is_the_model(command: Any, folder: Path) -> None:
    path = folder / "detector.onnx"
    before = path.read_bytes()
    with open(path, "rb") as source, open(path, "ab") as target:
        assert "is the model itself" in command(*FAST, stdin=source, stdout=target).error(2)
        assert "is the model itself" in command(*FAST, "detector.onnx", "-o", "-", stdout=target).error(2)
    assert path.read_bytes() == before


def test_whoever_reads_stops_reading(command: Any) -> None:
    """As `graphsurgery sites | head -1`: it ends without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = command("sites", "detector.onnx", stdout=writer)
        model = command(*FAST, "detector.onnx", "-o", "-", stdout=writer)
    finally:
        os.close(writer)
    assert (ended.code, ended.err) == (141, "")
    assert (model.code, model.err) == (141, "")


def _on_a_terminal(*arguments: str, folder: Path, stdin: bool = False) -> tuple[int, str]:
    from .conftest import COMMAND

    ours, theirs = os.openpty()
    given = theirs if stdin else subprocess.DEVNULL
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [COMMAND, *arguments], cwd=folder, stdin=given, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:  # how Linux tells that the other side was closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    return process.wait(timeout=300), shown.decode()


def test_on_a_terminal(folder: Path) -> None:
    code, shown = _on_a_terminal("sites", "detector.onnx", "--depth", "1", folder=folder)
    assert code == 0
    assert "\x1b[1m" in shown  # bold headers
    assert "/model.8" in shown


def test_a_model_is_not_written_to_a_terminal(folder: Path) -> None:
    code, shown = _on_a_terminal(*FAST, "detector.onnx", "-o", "-", folder=folder)
    assert code == 2
    assert "send standard output to a file or a pipe" in shown


def test_a_model_is_not_read_from_a_terminal(folder: Path) -> None:
    code, shown = _on_a_terminal("sites", folder=folder, stdin=True)
    assert (code, shown.count("\n")) == (2, 1)
    assert "name an ONNX file, or send one to standard input" in shown


def test_no_colours_elsewhere(command: Any) -> None:
    for arguments in (("sites", "detector.onnx"), ("blocks",), ("--help",), ("insert", "--help")):
        ended = command(*arguments, env={**os.environ, "FORCE_COLOR": "1"})
        assert ended.code == 0
        assert b"\x1b" not in ended.out
