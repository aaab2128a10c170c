"""What commands print: lines and aligned tables, coloured only on a terminal, or one JSON object."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TextIO

import typer

from ..errors import GraphSurgeryError, OutputError, as_flag, readable, spelled, spelling
from ..messages import printable
from .table import table

_LONGEST = 200
STOPPED_READING = 128 + 13
"""Exit code when whoever reads the output stops reading, as if the signal for it had ended the program."""


@dataclass
class Printer:
    """Prints to standard output; to standard error while that carries a model; nowhere when quiet."""

    as_json: bool = False
    quiet: bool = False
    to_stderr: bool = field(default=False, init=False)
    done: bool = field(default=False, init=False)
    """whether the JSON object was printed"""
    flags: ClassVar[Mapping[str, str]] = {}
    """option -> flag, of the running command"""
    last: ClassVar[Printer | None] = None
    """the one that the running command prints with"""

    def __post_init__(self) -> None:
        Printer.last = self

    @property
    def _stream(self) -> TextIO | None:
        return sys.stderr if self.to_stderr else sys.stdout

    @classmethod
    def current(cls, words: Sequence[str]) -> Printer:
        """The printer of the running command, or one for a command line that did not get as far."""
        return cls.last or cls(as_json="--json" in words)

    def report(self, report: Any, error: GraphSurgeryError | None = None) -> None:
        """Print what has ``to_json`` and ``lines``, as one or the other."""
        if self.as_json:
            with spelling(flag):
                data = report.to_json()
            self.json(data, error)
        self.lines(report.lines())

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of text, except where JSON was asked for."""
        if not self.as_json and not self.quiet:
            _write(self._stream, "".join(f"{text(line)}\n" for line in lines))

    def json(self, data: Mapping[str, Any], error: GraphSurgeryError | None = None) -> None:
        """Print one JSON object, if that was asked for, with the error of a check that failed."""
        import json

        if self.as_json and (error is not None or not self.quiet):
            whole = {**({} if self.quiet else data), **({"error": _error_json(error)} if error is not None else {})}
            with spelling(flag):
                text = json.dumps(readable(whole), indent=2)
            _write(self._stream, f"{text}\n")
            self.done = True

    def note(self, line: str) -> None:
        """Print a line that is not the result: to standard error, so that the result can be read by programs."""
        if not self.quiet:
            _write(sys.stderr, f"{text(line)}\n")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]], *, optional: Sequence[str] = ()) -> None:
        """Print a table, except where JSON was asked for. On a terminal it fits its width, see table.py."""
        if self.as_json or self.quiet:
            return
        terminal = self._stream is not None and self._stream.isatty()
        room = shutil.get_terminal_size().columns if terminal else None
        if not "".join(map("".join, rows)).isprintable():  # long tables are looked through at once
            rows = [[text(cell) for cell in row] for row in rows]
        first, *others = table(headers, rows, room=room, optional=optional)
        if terminal and "NO_COLOR" not in os.environ:
            first = f"\x1b[1m{first}\x1b[0m"
        _write(self._stream, "".join(f"{line}\n" for line in (first, *others)))


def text(line: str) -> str:
    """A line as the command line prints it: its options as flags, and nothing that a terminal takes for a command."""
    return printable(spelled(line, flag))


def flag(name: str, value: str) -> str:
    """How the command that runs spells an option."""
    return as_flag(name, value, Printer.flags.get(name, ""))


def _error_json(error: GraphSurgeryError) -> dict[str, Any]:
    """An error as the value of "error" in JSON; its option is a flag of the command, or none."""
    flags, name = Printer.flags, error.option or ""
    return {
        "code": error.exit_code,
        "type": type(error).__name__,
        "message": error.message,
        "option": flags.get(name) or flags.get(name.removesuffix("s")),  # one that may be repeated is in the singular
        "candidates": list(error.candidates),
    }


@contextmanager
def aside() -> Iterator[None]:
    """While code that is not ours runs, modules of the user's above all: what it prints goes to standard error.

    Standard output is for the result. This holds for what is written past Python's own stream, too, by C code say.
    """
    with contextlib.ExitStack() as stack:
        if sys.stdout is not None:
            stack.enter_context(_descriptor_aside(sys.stdout))
        other = sys.stderr if sys.stderr is not None else stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(other))
        yield


@contextmanager
def _descriptor_aside(stream: TextIO) -> Iterator[None]:
    """The same for the descriptor 1; ``stream`` is Python's own on it, of which others may have kept hold."""
    _flush(stream)
    kept = os.dup(1)
    other = os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else os.dup(2)
    os.dup2(other, 1)
    try:
        yield
    finally:
        _flush(stream)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(other)


def _flush(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # what is wrong with it is told when the result is written
        stream.flush()


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of an insertion without the graph that is kept among them for a block of the user's own."""
    return {name: value for name, value in settings.items() if not (isinstance(value, str) and len(value) > _LONGEST)}


def counted(number: int, noun: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed by whoever started the program
        return
    from . import progress

    progress.clear()
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        silence(stream)
        raise typer.Exit(STOPPED_READING) from None
    except OSError as error:
        silence(stream)
        name = "standard error" if stream is sys.stderr else "standard output"
        raise OutputError(f"{name} cannot be written: {error.strerror or error}") from None


def silence(stream: TextIO) -> None:
    """Let what is left in a stream's buffer go nowhere when the program ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
