"""Run the cases FIRST ... LAST - 1 of the fuzzer in one process: `python -m tests.fuzz.worker FIRST LAST FOLDER`.

Before each step of a case a line on standard output says so, and each finding is a JSON object there; the files of a
case with findings stay in FOLDER. The last line before a process was killed says what killed it. One case again:
`python -m tests.fuzz.worker 17 18 FOLDER`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import onnx
import onnxruntime

from graphsurgery.cli.main import main
from tests.fuzz.cases import Case, case

SECONDS = 20
MEMORY = 2 << 30
"""bytes of address space over what the process has once everything is imported"""
CODES = (0, 1, 2, 3)
_BACKSTOP = 3 * SECONDS
"""native code takes no signal: after so long the process is ended from outside of Python"""
_OURS = re.compile(r"^graphsurgery: error: .", re.MULTILINE)
_NEVER = re.compile(
    "Traceback|fault of graphsurgery|not enough memory|bad_alloc|bad allocation|Failed to allocate memory"
)
"""in what is said: a trace, a fault that the tool admits, and memory beyond the limit, of Python and of onnxruntime"""
RUN, CHECK_INPUT, CHECK_RESULT = "run", "check-input", "check-result"
"""steps of a case; that onnxruntime dies of a mutant while it is checked here says nothing about the tool"""


class TooLongError(BaseException):
    """Raised into a command that runs over its time; no BaseException of anybody else's is caught."""


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """TooLongError in the body after so many seconds; the process ends where that is not enough."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(_BACKSTOP, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def _valid(path: Path) -> str:
    """Why a model file is none that onnx and onnxruntime take; "" if it is."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnx, protobuf and onnxruntime each have their own
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def findings(this: Case, folder: Path) -> Iterator[str]:
    """Run a case in an empty folder; what is wrong with how it went."""
    for name, content in this.files.items():
        (folder / name).write_bytes(content)
    out, err, fault, code = io.StringIO(), io.StringIO(), "", None
    begin = time.monotonic()
    try:
        with at_most(SECONDS), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(this.arguments))
    except TooLongError:
        fault = f"ran for more than {SECONDS} s:\n{traceback.format_exc()}"
    except BaseException:
        fault = f"raised\n{traceback.format_exc()}"
    took, said = time.monotonic() - begin, err.getvalue()
    if fault:
        yield fault
    elif code not in CODES:
        yield f"ended with {code}"
    elif _NEVER.search(said + out.getvalue()):
        yield f"ended with {code} and said {said}{out.getvalue()}"
    elif code in (2, 3) and not _OURS.search(said):
        yield f"ended with {code} and did not say why: {said}"
    if took > SECONDS and not fault:
        yield f"ran for {took:.0f} s"
    print("ran", this.number, code, f"{took:.2f}", flush=True)
    yield from _changed(this, folder, code)


def _changed(this: Case, folder: Path, code: int | None) -> Iterator[str]:
    """Whether files are as they have to be: all of them after a failure, and what was written a valid model."""
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in sorted(left.keys() | this.files.keys()):
        if left.get(name) != this.files.get(name) and (code != 0 or name != this.changes):
            yield f"{name} was changed, and the command ended with {code}"
    result = folder / this.changes if this.changes else None
    if code != 0 or result is None or not result.exists():
        return
    before = folder / "before.onnx"
    before.write_bytes(this.files[this.edits])
    print(CHECK_INPUT, this.number, flush=True)
    if _valid(before):
        return
    print(CHECK_RESULT, this.number, flush=True)
    if fault := _valid(result):
        yield f"the result is not valid, and what it was made of was: {fault}"


def run(first: int, last: int, folder: Path) -> None:
    """Run the cases first ... last - 1."""
    case(first)  # the seeds, and all that they import
    import torch  # noqa: F401 - so that its address space is no part of a case's

    here = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for number in range(first, last):
        place = folder / str(number)
        place.mkdir(parents=True)
        this = case(number)
        print(RUN, number, flush=True)
        os.chdir(place)
        found = list(findings(this, place))
        for each in found:
            line = {"case": number, "seed": this.seed, "arguments": this.arguments, "finding": each}
            print(json.dumps(line), flush=True)
        os.chdir(folder)
        if not found:
            for path in place.iterdir():
                path.unlink()
            place.rmdir()


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).resolve())
