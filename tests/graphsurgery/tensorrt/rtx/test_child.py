"""The child process: what it leaves behind when it, or its parent, is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.rtx import child
from graphsurgery.tensorrt.rtx.libraries import Libraries
from tests.models import chain
from tests.rtx import Fake

LIBRARIES = Libraries(Path("runtime"), Path("parser"), "1.7.1")
HANGING = """
import sys
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.rtx import child
from tests.graphsurgery.tensorrt.rtx.test_child import LIBRARIES
child.command = lambda: [sys.executable, sys.argv[1]]
for answer in child.answers(LIBRARIES, []):
    print("answered")
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def within_seconds(seconds: float, condition: object) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_a_closed_standard_input_takes_nothing_from_the_model(rtx: Fake) -> None:
    """As after reading a model from it: the next file to be opened is descriptor 0."""
    rtx()
    kept = os.dup(0)
    os.close(0)
    try:
        said = list(child.answers(LIBRARIES, [child.Job(ModelFile.load(chain("Relu")), "it")]))
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert [each["step"] for each in said] == ["loaded", "parsed"]


def test_the_process_and_its_models_are_gone_when_the_answers_are(rtx: Fake) -> None:
    rtx()
    before = set(os.listdir("/proc/self/fd"))
    said = child.answers(LIBRARIES, [child.Job(ModelFile.load(chain("Relu")), "the model")])
    assert next(said)["version"] == 10701
    (process,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert alive(int(process))
    said.close()
    assert not alive(int(process))
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries are for Linux")
def test_the_process_dies_with_its_parent(rtx: Fake, tmp_path: Path) -> None:
    rtx(at=["loaded", 0, "hang"])
    fake = Path(__file__).parents[3] / "fake_rtx.py"
    with subprocess.Popen([sys.executable, "-c", HANGING, str(fake)]) as parent:
        listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        assert within_seconds(30, lambda: listed.read_text().split())
        (process,) = map(int, listed.read_text().split())
        assert within_seconds(30, lambda: "fake_rtx" in Path(f"/proc/{process}/cmdline").read_text())
        assert within_seconds(30, lambda: Path(f"/proc/{process}/wchan").exists() and _settled(process))
        parent.send_signal(signal.SIGKILL)
    assert within_seconds(30, lambda: not alive(process))


def _settled(process: int) -> bool:
    """Whether the child has come as far as to hang: its standard output is no longer the pipe."""
    return os.readlink(f"/proc/{process}/fd/1") == os.devnull
