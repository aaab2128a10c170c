"""CBAM in the tests that go over every block."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("cbam", {"reduction": 2, "bn_eps": 1e-3}),
    ("cbam[ultralytics]", {"kernel": 3}),
    ("cbam[timm]", {"hidden": 3}),
    ("cbam[yolo-port]", {"hidden": 3}),
    ("cbam[cv-attention]", {"hidden": 3, "kernel": 9}),
    ("cbam[external-attention]", {"hidden": 3, "kernel": 9}),
    ("cbam", {"reduction": 2, "pool_types": "max+lp+lse"}),
    ("cbam", {"reduction": 2, "pool_types": "avg", "spatial": False}),
]
IDENTITY = {"cbam"}


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array | None:
    """Layers small enough for two gates, one behind the other, to stay within what float16 can tell apart."""
    return rng.normal(0.05, 0.3, shape) / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else None
