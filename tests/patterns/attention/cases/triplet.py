"""Triplet Attention, for the tests of every block."""

from __future__ import annotations

import numpy as np

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("triplet", {}),
    ("triplet", {"spatial": False, "bn_eps": 1e-3}),
]
IDENTITY = ("triplet",)


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> object:
    """Logits of order one where x is of order twenty."""
    return rng.normal(0.0, 0.2 / np.sqrt(np.prod(shape)), shape) if key.endswith("conv.weight") else None
