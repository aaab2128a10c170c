"""Progress on standard error: how far a command is, once it takes longer than a moment."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TextIO

from ..messages import observed

_AT_ONCE = 2.0
"""seconds that a command may take before a terminal is told"""
_ON_A_TERMINAL, _ON_A_PIPE = 0.2, 10.0
"""seconds from one telling to the next"""


class _Teller:
    """Tells in a thread of its own: in one line that is rewritten on a terminal, else in a line every ten seconds."""

    def __init__(self, what: str, stream: TextIO) -> None:
        self._what = what
        self._stream = stream
        self._terminal = stream.isatty()
        self._count = ""
        self.words: Callable[[], str] | None = None
        """what the line says beside the time, in place of the count"""
        self.silent = False
        self._shown = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._start = monotonic()

    def count(self, done: int, total: int, noun: str) -> None:
        """Note how many of the things to do are done."""
        self._count = f"{done} of {total} {noun}, "

    def run(self) -> None:
        """Tell until the end."""
        pause = _AT_ONCE if self._terminal else _ON_A_PIPE
        while not self._ended.wait(pause):
            said = self._count if self.words is None else f"{self.words()}, "
            text = f"{self._what}: {said}{monotonic() - self._start:.0f} s"
            with self._lock, contextlib.suppress(OSError, ValueError):
                if self.silent:
                    continue
                self._stream.write(f"\r\x1b[K{text}" if self._terminal else f"graphsurgery: {text}\n")
                self._stream.flush()
                self._shown = self._terminal
            pause = _ON_A_TERMINAL if self._terminal else _ON_A_PIPE

    def clear(self) -> None:
        """Take the line away, so that other text can be written."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._shown:
                self._stream.write("\r\x1b[K")
                self._stream.flush()
                self._shown = False

    def end(self) -> None:
        """Tell nothing more."""
        self._ended.set()
        self.clear()


_tellers: list[_Teller] = []


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Tell how far the body is, with the counts of :func:`graphsurgery.messages.tracked` in it."""
    if sys.stderr is None:
        yield
        return
    teller = _Teller(what, sys.stderr)
    thread = threading.Thread(target=teller.run, daemon=True)
    _tellers.append(teller)
    thread.start()
    try:
        with observed(teller.count):
            yield
    finally:
        _tellers.remove(teller)
        teller.end()
        thread.join()


@contextmanager
def own_words(words: Callable[[], str]) -> Iterator[None]:
    """While this lasts, the line says ``words()``, and not a count."""
    for teller in _tellers:
        teller.words = words
    try:
        yield
    finally:
        for teller in _tellers:
            teller.words = None


@contextmanager
def silenced() -> Iterator[None]:
    """While this lasts, there is no line: something else tells how far the command is."""
    for teller in _tellers:
        teller.silent = True
    clear()
    try:
        yield
    finally:
        for teller in _tellers:
            teller.silent = False


def clear() -> None:
    """Take the line of progress away, before something else is written."""
    for teller in _tellers:
        teller.clear()
