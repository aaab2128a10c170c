"""MLCA, for the tests of every block."""

from __future__ import annotations

import numpy as np

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("mlca", {}),
    ("mlca", {"local_size": 3, "local_weight": 0.2, "kernel_size": 5}),
]


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> object:
    """Logits of order one where x is of order twenty."""
    return rng.normal(0.0, 0.2 / np.sqrt(shape[2]), shape)
