"""SRM in the tests that go over every block."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS: list[tuple[str, dict[str, object]]] = [("srm", {"bn_eps": 1e-3})]
IDENTITY = {"srm"}


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array | None:
    """Styles small enough for the gate to stay within what float16 can tell apart."""
    return rng.normal(0.02, 0.06, shape) if key == "cfc" else None
