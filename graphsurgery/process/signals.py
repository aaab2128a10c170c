"""Signals that end the command line: what it registered as left over is removed, then the process exits.

The handler raises nothing. An exception in the middle of an import passes through C++ code of onnx or numpy, which
aborts the process; and one in the middle of a clean-up undoes the clean-up.

Only the command line installs it. A program that uses the Python API keeps its own handlers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from . import leftovers

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU")
"""those that other programs, terminals and the system end a process with, as far as it may catch them"""
_TIDY = b"\r\x1b[K\x1b[?25h"
"""for a terminal: takes the line away, and shows the cursor"""

_holding: list[object] = []
_waiting: list[int] = []


def install() -> None:
    """End on signals as the module says; those that were ignored when the program started (``nohup``) stay so."""
    _set(_received)


def ignore() -> None:
    """From now on nothing but the exit code is left to give, and Python would give its handlers up before it does."""
    _set(signal.SIG_IGN)


def _set(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


class held:
    """A block of code that signals do not interrupt: they end the process right behind it."""

    def __enter__(self) -> None:
        _holding.append(self)

    def __exit__(self, *error: object) -> None:
        _holding.remove(self)
        if _waiting and not _holding:
            _end(_waiting[0])


def _received(number: int, frame: object) -> None:
    if _holding:
        _waiting.append(number)
    else:
        _end(number)


def _end(number: int) -> None:
    leftovers.remove_all()
    with suppress(OSError):  # the terminal may be gone, too
        if os.isatty(2):  # a line of progress may stand there, without the cursor
            os.write(2, _TIDY)
    os._exit(128 + number)
