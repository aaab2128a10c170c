"""What commands print: lines and aligned tables, coloured only on a terminal, or one JSON object."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import typer

from ..errors import OutputError
from ..messages import printable

_LONGEST = 200
STOPPED_READING = 128 + 13
"""Exit code when whoever reads the output stops reading, as if the signal for it had ended the program."""


class Printer:
    """Prints to standard output; to standard error while that carries a model; nowhere when quiet."""

    def __init__(self, *, as_json: bool = False, to_stderr: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self._stream = sys.stderr if to_stderr else sys.stdout
        self._quiet = quiet

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of text, except where JSON was asked for."""
        if not self.as_json:
            self._write("".join(f"{printable(line)}\n" for line in lines))

    def json(self, data: dict[str, Any]) -> None:
        """Print one JSON object, if that was asked for."""
        if self.as_json:
            self._write(json.dumps(data, indent=2) + "\n")

    def note(self, line: str) -> None:
        """Print a line that is not the result: to standard error, so that the result can be read by programs."""
        if not self._quiet:
            _write(sys.stderr, f"{printable(line)}\n")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]], *, cut: bool = False) -> None:
        """Print a table, except where JSON was asked for: with rules on a terminal, in plain columns elsewhere.

        Where the terminal is too narrow, the last column is wrapped, or with ``cut`` shortened.
        """
        if self.as_json or self._quiet:
            return
        if self._stream is not None and self._stream.isatty():
            _rich_table(self._stream, headers, rows, cut=cut)
        else:
            widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
            for row in (headers, *rows):
                text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                self.lines([text.rstrip()])

    def _write(self, text: str) -> None:
        if not self._quiet:
            _write(self._stream, text)


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


@contextmanager
def progress(what: str, *, quiet: bool) -> Iterator[None]:
    """A spinner on standard error while something takes its time, if that is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of an insertion without the graph that is kept among them for a block of the user's own."""
    return {name: value for name, value in settings.items() if not (isinstance(value, str) and len(value) > _LONGEST)}


def counted(number: int, noun: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed by whoever started the program
        return
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


def _rich_table(stream: TextIO, headers: Sequence[str], rows: Sequence[Sequence[str]], *, cut: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, no_wrap=header != headers[-1], overflow="fold")
    for row in rows:
        *cells, last = (Text(printable(cell)) for cell in row)
        if cut:
            last.no_wrap, last.overflow = True, "ellipsis"
        table.add_row(*cells, last)
    Console(file=stream).print(table)
