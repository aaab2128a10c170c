"""While a sweep runs: the table that grows in a terminal, lines on a pipe, how long the rest takes, an early end.

A terminal is a real one: a pseudo-terminal of the system, and what the program writes to it.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import graphsurgery as gsx
from graphsurgery.cli import progress
from graphsurgery.cli.growing import growing
from graphsurgery.errors import OutputError
from graphsurgery.modelfile import source
from graphsurgery.sweep import pace as pacing
from graphsurgery.sweep import running
from graphsurgery.sweep.figures import EMPTY
from graphsurgery.sweep.pace import Pace, Work, watched

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"
FEW: dict[str, Any] = {"rounds": 2, "warm_up": 0, "threads": 1}


def in_a_terminal(command: list[str], until: str, end: Callable[[int], None] | None = None) -> tuple[int, str]:
    """The exit code, and all that was written to a terminal of 24 lines with 100 columns. ``end`` is called with the
    process once ``until`` was written.
    """
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "LINES": "24", "TERM": "xterm"}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    os.close(slave)
    written, waiting = "", end is not None
    while True:
        try:
            more = os.read(master, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not more:
            break
        written += more.decode()
        if waiting and end is not None and until in written:
            waiting = False
            end(process.pid)
    os.close(master)
    return process.wait(), written


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_rows_appear_while_it_runs_and_control_c_leaves_a_valid_report(tmp_path: Path) -> None:
    words = ["-m", "simam", "-m", "eca", "--after", "/model.8", "--rounds", "100000", "-o", str(tmp_path / "r")]
    command = [sys.executable, "-m", "graphsurgery", "sweep", str(DETECTOR), *words]
    code, written = in_a_terminal(command, "2 of 2 cells examined", lambda pid: os.kill(pid, signal.SIGINT))
    assert code == 130
    shown = plain(written)
    assert re.search(r"block +place +parameters +nodes +MACs +drift +latency", shown)
    assert re.search(r"simam +/model\.8 +0 +\d+ +0 +[\d.]+% +not timed yet", shown)
    assert re.search(r"sweep: 2 of 2 cells examined, 0 timed, about .* left, \d+ s", shown)
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is there again
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["complete"], [cell["state"] for cell in report["cells"]]) == (False, ["untimed"] * 2)
    assert sorted(path.suffix for path in (tmp_path / "r").iterdir()) == [".csv", ".html", ".json", ".md", ".tex"]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_end_among_several_at_once_is_quiet(tmp_path: Path, number: int) -> None:
    pytest.importorskip("joblib")
    words = ["-m", "simam", "-m", "eca", "--after", "/model.8", "--rounds", "100000", "--jobs", "2"]
    command = [sys.executable, "-m", "graphsurgery", "sweep", str(DETECTOR), *words, "-o", str(tmp_path / "r")]
    code, written = in_a_terminal(command, "2 of 2 cells examined", lambda pid: os.kill(pid, number))
    assert code == 128 + number
    assert "leaked" not in written
    assert "Warning" not in written


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """Those of one cell."""
    (cell,) = gsx.sweep(DETECTOR, "simam", after="/model.8", **FEW).to_json()["cells"]
    return {name: cell[name] for name in EMPTY} | {"state": "untimed", "reason": "", "latency": {}}


@pytest.fixture
def quick(figures: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is examined: every cell has the same figures."""
    monkeypatch.setattr(running, "examine", lambda cell, setting: dict(figures))


@pytest.mark.usefixtures("quick")
def test_on_a_pipe_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_ON_A_PIPE", 0.01)
    with progress.progress("sweep"), growing():
        gsx.sweep(DETECTOR, "simam", after="/model.8", **FEW)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("graphsurgery: sweep: starting, ")
    assert any(re.search(r": 1 of 1 cells examined, 0 timed, about 10 s left, \d+ s$", line) for line in lines)
    assert "\x1b" not in stream.getvalue()


@pytest.mark.usefixtures("quick")
def test_whoever_watches_is_told_of_every_step_and_round() -> None:
    told: list[tuple[int, int, int]] = []

    def watcher(report: Any, pace: Pace) -> None:
        told.append((pace.examining.done, pace.timing.done, pace.timed))
        assert pace.timing.done <= pace.timing.total
        assert len(report["cells"]) == 2

    with watched(watcher):
        gsx.sweep(DETECTOR, ["simam", "eca"], after="/model.8", rounds=3, warm_up=1, threads=1)
    runs = 4  # two cells, the model and the control, four times each
    assert told == [
        *((examined, 0, 0) for examined in (0, 1, 2, 2)),
        *((2, runs * rounds, 0) for rounds in (1, 2, 3)),
        (2, runs * 4, 2),
    ]


def test_the_rest_is_estimated_from_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pacing, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pace = Pace(10, Work(10), Work(total=100, guess=2.0))
    pace.examining.begin()
    assert pace.words == "0 of 10 cells examined, 0 timed"  # nothing tells how long one takes
    now[0] = 30.0
    pace.examining.advance()
    assert pace.words == "1 of 10 cells examined, 0 timed, about 8 min left"  # 9 x 30 s and 100 x 2 s
    now[0] = 60.0
    assert pace.words.endswith("about 7 min left")
    pace.examining.advance(9)
    pace.timing.begin()
    now[0] = 61.0
    pace.timing.advance()
    assert pace.words == "10 of 10 cells examined, 0 timed, about 2 min left"  # each took a second, not two
    pace.timing.total = 20000
    assert pace.words.endswith("about 5 h 33 min left")
    now[0] = 20055.0
    assert pace.words.endswith("about 10 s left")


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """From the file with this number on, the system says that there is no space."""
    original, written = source.os.write, [0]

    def write(descriptor: int, data: Any) -> int:
        written[0] += 1
        if written[0] > after:
            raise OSError(28, os.strerror(28))
        return original(descriptor, data)

    monkeypatch.setattr(source.os, "write", write)


@pytest.mark.usefixtures("quick")
def test_a_full_disk_ends_it_in_a_sentence_and_what_was_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "r"
    with monkeypatch.context() as patch:
        fill_the_disk(patch, after=12)  # five files at the start, five for the first cell, two of the second
        with pytest.raises(OutputError) as caught:
            gsx.sweep(DETECTOR, ["simam", "eca"], after="/model.8", output=folder, **FEW)
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        f"{folder / 'report.md'} was not written: there is no space left on the disk; what was measured before is kept "
        "there, and resume=True goes on with it"
    )
    report = json.loads((folder / "report.json").read_text())
    assert [cell["state"] for cell in report["cells"]] == ["untimed", "untimed"]
    assert len(list(folder.iterdir())) == 5
    found = gsx.sweep(DETECTOR, ["simam", "eca"], after="/model.8", output=folder, resume=True, **FEW)
    assert [row["state"] for row in found.rows] == ["done", "done"]


@pytest.mark.usefixtures("quick")
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fill_the_disk(patch, after=0)
        with pytest.raises(OutputError, match=r"no space left on the disk$"):
            gsx.sweep(DETECTOR, "simam", after="/model.8", output=tmp_path / "r", **FEW)
