"""Pace: how far a sweep is, how long the rest of it takes by what was measured, and who is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

_MINUTE, _HOUR = 60, 3600


@dataclass
class Work:
    """Equal pieces of one kind, done one after the other or a few at once."""

    total: int = 0
    done: int = 0
    guess: float | None = None
    """seconds for each, as long as none is done"""
    _seconds: float = 0.0
    _begun: float | None = None

    def begin(self) -> None:
        """From now on time goes into these."""
        self._begun = time.monotonic()

    def advance(self, pieces: int = 1) -> None:
        """So many more are done."""
        now = time.monotonic()
        self._seconds += now - self._begun if self._begun is not None else 0.0
        self._begun = now
        self.done += pieces

    def remaining(self) -> float | None:
        """Seconds; None where nothing tells."""
        left = self.total - self.done
        each = self._seconds / self.done if self.done else self.guess
        if left <= 0:
            return 0.0
        if each is None:
            return None
        under_way = time.monotonic() - self._begun if self._begun is not None else 0.0
        return max(left * each - under_way, 0.0)


@dataclass
class Pace:
    """How far a sweep is. Cells are examined first, then timed: each batch takes so many runs of models."""

    cells: int
    examining: Work = field(default_factory=Work)
    timing: Work = field(default_factory=Work)
    timed: int = 0
    """cells with every latency"""
    is_timing: bool = False

    @property
    def words(self) -> str:
        """In one line."""
        examined = self.cells - self.examining.total + self.examining.done
        said = f"{examined} of {self.cells} cells examined, {self.timed} timed"
        parts = [work.remaining() for work in (self.examining, self.timing)]
        known = [each for each in parts if each is not None]
        return f"{said}, {_about(sum(known))}" if len(known) == len(parts) else said


def _about(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"about {max(round(seconds, -1), 10):.0f} s left"
    if seconds < _HOUR:
        return f"about {round(seconds / _MINUTE):.0f} min left"
    hours, rest = divmod(round(seconds / _MINUTE), 60)
    return f"about {hours} h {rest} min left"


Watcher = Callable[[Mapping[str, Any], Pace], None]
"""takes the report as it is, and the pace"""
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Call ``watcher(report, pace)`` after every step of a sweep in the body, and between the rounds of its timing."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(report: Mapping[str, Any], pace: Pace) -> None:
    """Tell whoever watches."""
    if (watcher := _watcher.get()) is not None:
        watcher(report, pace)
