"""Child: a process that holds NVIDIA's libraries, so that a crash or a hang of theirs is an answer like others.

It runs driver/ with the standard library alone. Models go to it as files in memory, without a copy in Python; what
comes back is a line of JSON for each step, see driver/main.py.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ...modelfile.model import ModelFile
from ...modelfile.saving import write_stream
from .libraries import Libraries

Answer: TypeAlias = Mapping[str, Any]
LOAD, PARSE, BUILD = "loaded", "parsed", "built"
"""the steps, as the driver calls them"""
_DOING = {LOAD: "was loaded", PARSE: "parsed {}", BUILD: "built an engine of {}"}
PATIENCE = {LOAD: 60.0, PARSE: 120.0, BUILD: 900.0}
"""seconds that a step may take. yolov8n is parsed in 0.1 and built in 2, RT-DETR-L built in 23."""
_START = "import sys; sys.path.append(sys.argv[1]); from driver.main import main; main()"


class LibraryFailed(Exception):
    """The libraries gave no answer; the message is a sentence that says why."""


@dataclass(frozen=True)
class Job:
    """One model for the child."""

    model: ModelFile
    called: str
    """in sentences"""
    build: bool = False
    profile: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    """dynamic input -> smallest, usual and largest shape, to build for"""

    @property
    def path(self) -> str:
        """The file that external data lies beside."""
        return str(self.model.folder.resolve() / self.model.name) if self.model.folder is not None else ""


def command() -> list[str]:
    """What starts the child: this Python, without the user's environment and packages."""
    return [sys.executable, "-I", "-S", "-c", _START, str(Path(__file__).parent)]


def answers(
    libraries: Libraries, jobs: Sequence[Job], patience: Mapping[str, float] = PATIENCE
) -> Generator[Answer, None, None]:
    """What the libraries say: that they are loaded; of each job in turn what was parsed and, if it could be, built.

    LibraryFailed where they do not say it.
    """
    with ExitStack() as stack:
        models = [_handed_over(job, stack) for job in jobs]
        request = {"runtime": str(libraries.runtime), "parser": str(libraries.parser), "models": models}
        process = _start([model["descriptor"] for model in models], stack)
        with suppress(BrokenPipeError):  # it has died, which the first answer tells
            _send(process, json.dumps(request).encode())
        lines = _Lines(process)
        yield lines.next(LOAD, "", patience)
        for job in jobs:
            parsed = lines.next(PARSE, job.called, patience)
            yield parsed
            if job.build and parsed["parsed"]:
                yield lines.next(BUILD, job.called, patience)


def _handed_over(job: Job, stack: ExitStack) -> dict[str, Any]:
    """A job as the driver reads it, with the model in a file without a name."""
    descriptor = os.memfd_create("graphsurgery")
    stack.callback(os.close, descriptor)
    while descriptor < 3:  # where standard input is closed, it gets 0, which is the child's own standard input
        descriptor = os.dup(descriptor)
        stack.callback(os.close, descriptor)
    write_stream(job.model, descriptor)
    size = os.lseek(descriptor, 0, os.SEEK_END)
    given = {"path": job.path, "build": job.build, "profile": job.profile}
    return {"descriptor": descriptor, "size": size, **given}


def _start(descriptors: Sequence[int], stack: ExitStack) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(
            command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=descriptors
        )
    except OSError as error:
        raise LibraryFailed(f"no process can be started for NVIDIA's parser: {error.strerror or error}") from None
    stack.enter_context(process)  # closes its pipes and waits
    stack.callback(process.kill)
    return process


def _send(process: subprocess.Popen[bytes], request: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(request)
    finally:
        process.stdin.close()


class _Lines:
    """The answers of a child, each waited for as long as its step may take."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process = process
        self._descriptor = process.stdout.fileno()
        self._rest = b""

    def next(self, step: str, model: str, patience: Mapping[str, float]) -> Answer:
        """The answer of a step. LibraryFailed where there is none."""
        doing = _DOING[step].format(model)
        line = self._line(patience[step])
        if line is None:
            raise LibraryFailed(f"NVIDIA's library did not come to an end within {patience[step]:g} s while it {doing}")
        if not line:
            raise LibraryFailed(f"NVIDIA's library died ({self._end()}) while it {doing}")
        answer: Answer = json.loads(line)
        if answer["step"] != step:
            raise LibraryFailed(f"NVIDIA's library cannot be used: {answer.get('reason', line.decode())}")
        return answer

    def _line(self, seconds: float) -> bytes | None:
        """A line; b"" where the child has ended without one, None where the time is over."""
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                read = os.read(self._descriptor, 1 << 16)
                if not read:
                    return b""
                self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _end(self) -> str:
        """How the child ended."""
        code = self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"
