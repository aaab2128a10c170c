"""BAM in the tests that go over every block."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("bam", {"hidden": 4, "bn_eps": 1e-3}),
    ("bam[paper]", {"reduction": 3}),
    ("bam[cv-attention]", {"hidden": 3}),
]
IDENTITY = {"bam", "bam[paper]", "bam[cv-attention]"}


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array | None:
    """Layers that neither shut the ReLUs behind them nor drive two gates at once out of what float16 tells apart."""
    last = "final" in key or "last" in key
    if len(shape) > 1:
        low, high = (-0.35, 0.2) if last else (-0.3, 1.0)
        return np.asarray(2.0 * rng.uniform(low, high, shape) / np.sqrt(np.prod(shape[1:])))
    part = key.rpartition(".")[2]
    return rng.uniform(0.4, 1.0, shape) if part in ("weight", "bias", "running_mean") else None
