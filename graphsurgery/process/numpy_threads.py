"""numpy's threads: it starts some for linear algebra when it is loaded; nothing here has large matrices for them."""

from __future__ import annotations

import os

_ONE = "OPENBLAS_NUM_THREADS"
_SAID_BY = (_ONE, "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
"""how users say how many threads there are to be"""


def load_numpy() -> None:
    """Load numpy without such threads, unless the user says how many there are to be.

    One for each core, they take 20 ms to start and to end, on a busy machine 60. What is loaded later starts as many as
    it would, and so do other processes.
    """
    said = any(name in os.environ for name in _SAID_BY)
    if not said:
        os.environ[_ONE] = "1"
    try:
        import numpy  # noqa: F401 - only to have it loaded
    finally:
        if not said:
            del os.environ[_ONE]
