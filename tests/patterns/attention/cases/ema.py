"""Efficient Multi-scale Attention, for the tests of every block."""

from __future__ import annotations

import numpy as np

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("ema", {"group_channels": 4}),
    ("ema", {"factor": 4}),
]
FACTOR = 4.0
"""On a constant map, the rounding errors of a sum over the whole map, divided by the root of the eps: 316-fold."""
IDENTITY = ("ema",)


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> object:
    """Means small enough for their softmax not to be all or nothing, gates that do not close: a closed one leaves the
    normalisation behind it nothing but the rounding errors of its sigmoid."""
    if len(shape) > 1:
        return rng.normal(0.0, 0.1 / np.sqrt(np.prod(shape[1:])), shape)
    return None
