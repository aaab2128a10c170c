"""Tracks: the place of each stretch of line in a gutter, so that no two lie on each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_APART = 4.0
"""what is between the ends of two stretches on one track, at least"""


def tracks(stretches: Sequence[tuple[float, float]]) -> list[int]:
    """The track of each stretch (its lower and its higher end): short ones first, each on the first that is free."""
    low, high = np.asarray(stretches, np.float64).T
    found = np.full(len(stretches), -1)
    for i in np.argsort(high - low, kind="stable"):
        free = np.ones(len(stretches) + 1, bool)
        free[found[(low - _APART <= high[i]) & (low[i] <= high + _APART)]] = False  # -1, not placed yet: the last entry
        found[i] = free.argmax()
    return [int(track) for track in found]
