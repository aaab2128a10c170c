"""Garbage: Python's search for objects that refer to each other and to nothing else."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Do not search while the body runs, which keeps nearly all that it makes: the search would go through all of it.

    Examples
    --------
    >>> @uncollected()
    ... def listed() -> bool:
    ...     return gc.isenabled()
    >>> listed(), gc.isenabled()
    (False, True)
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            _age()
            gc.enable()


def _age() -> None:
    """Count everything as old, or the search would begin at once, with all that was kept."""
    if not gc.get_freeze_count():  # what somebody froze must stay so
        gc.freeze()
        gc.unfreeze()
