"""MSCA, for the tests of every block."""

from __future__ import annotations

import numpy as np

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("msca", {}),
    ("msca[unit]", {}),
    ("msca[wrapper]", {}),
]
LARGEST = 1000.0
IDENTITY = ("msca", "msca[unit]", "msca[wrapper]")


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> object:
    """A gate of order one tenth for x of order one: the block is a polynomial of degree two, and grows."""
    deviation = {"conv3.weight": 0.02, "proj_1.weight": 0.3}.get(key.removeprefix("spatial_gating_unit."))
    return None if deviation is None else rng.normal(0.0, deviation / np.sqrt(shape[1]), shape)
