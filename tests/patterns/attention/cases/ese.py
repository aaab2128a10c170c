"""eSE in the tests that go over every block."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS: list[tuple[str, dict[str, object]]] = [("ese", {}), ("ese", {"gate": "sigmoid"})]
IDENTITY = {"ese"}


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Gates that mostly lie between 0.5 and 1: a small one is a difference of numbers of order one."""
    return rng.uniform(1.0, 2.5, shape) if len(shape) == 1 else rng.normal(0.0, 0.1, shape) / np.sqrt(shape[1])
