"""Open files, on systems that differ: reading at a position, and setting a path free that the system keeps while the
file is open.

POSIX replaces and removes files that are open, and reads at a position; Windows does neither. What the system can do is
tried first, and nothing here asks which system it is.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from _weakrefset import WeakSet
from collections.abc import Callable

TYPE_CHECKING = False  # as in typing, which takes 3 ms in which nothing catches signals yet
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    class Holder(Protocol):
        """What keeps a file open."""

        @property
        def path(self) -> Path | None:
            """Where the file is, links followed; None if nobody knows."""

        def let_go(self) -> None:
            """Go on without the file, with the same content. OSError where that cannot be."""


_position = allocate_lock()
"""held while the position of a descriptor is moved; one for all, because copies of a descriptor share their position"""
_holders: WeakSet[Holder] = WeakSet()


def register(holder: Holder) -> None:
    """Note that somebody keeps a file open, for as long as the object lives."""
    _holders.add(holder)


def freed(operation: Callable[..., None], *paths: str | os.PathLike[str]) -> None:
    """Carry out an operation of the system on paths. If it is refused, do so again after this process has let go of the
    files that it keeps open there.
    """
    try:
        operation(*paths)
    except PermissionError:
        real = {os.path.realpath(path) for path in paths}
        holding = [each for each in list(_holders) if str(each.path) in real]
        if not holding:
            raise
        for each in holding:
            each.let_go()
            _holders.discard(each)
        operation(*paths)


def read_at(descriptor: int, count: int, start: int) -> bytes:
    """At most ``count`` bytes from a position on. The position of the descriptor itself stays where it is."""
    pread: Callable[[int, int, int], bytes] | None = getattr(os, "pread", None)
    if pread is not None:
        return pread(descriptor, count, start)
    with _position:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, start, os.SEEK_SET)
            return os.read(descriptor, count)
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)
