"""Workers: cells examined one after the other, or several at once by whatever backend of joblib is in use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from ..errors import MissingDependency, option
from .grid import Cell

_SECONDS = 1.0
_watching: list[int] = []
"""the parent that this process ends with"""


def each_of(function: Callable[[Cell], dict[str, Any]], cells: Sequence[Cell], jobs: int) -> Iterator[dict[str, Any]]:
    """The results in the order of the cells, as they come. joblib's own processes have ended after the last."""
    if jobs == 1:
        yield from map(function, cells)
        return
    parallel, delayed = joblib()
    guarded = partial(_guarded, function, os.getpid())
    _watch_quietly()
    try:
        yield from parallel(n_jobs=jobs, return_as="generator")(delayed(guarded)(cell) for cell in cells)
    finally:
        _end_idle()


def _end_idle() -> None:
    """joblib keeps its processes for minutes, with torch in the memory of each."""
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped,import-not-found,unused-ignore]

    get_reusable_executor(reuse=True).shutdown(wait=True)


def _watch_quietly() -> None:
    """Start joblib's watcher of temporary folders. After a signal it removes them, and by default warns of that."""
    from joblib.externals.loky.backend.resource_tracker import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        ensure_running,
    )

    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"
    try:
        ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def joblib() -> tuple[Any, Any]:
    """joblib's ``Parallel`` and ``delayed``. MissingDependency without it."""
    try:
        from joblib import Parallel, delayed  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        remedy = 'pip install "graphsurgery[sweep]"'
        raise MissingDependency(f"{option('jobs')} needs joblib, which is not installed; {remedy}") from None
    return Parallel, delayed


def _guarded(function: Callable[[Cell], dict[str, Any]], parent: int, cell: Cell) -> dict[str, Any]:
    """The function, in a process that ends with the one that started it: a signal may end that without a word."""
    if os.getppid() == parent and parent not in _watching:
        _watching.append(parent)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return function(cell)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)
