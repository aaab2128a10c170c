"""The Global Attention Mechanism, for the tests of every block."""

from __future__ import annotations

import numpy as np

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("gam", {"reduction": 2}),
    ("gam[listing]", {"reduction": 4, "bn_eps": 1e-3}),
    ("gam[cv-attention]", {"reduction": 3}),
    ("gam[yolo-grouped]", {"reduction": 2, "bn_eps": 1e-3}),
    ("gam[yolo-grouped]", {"reduction": 2, "group": False}),
]
LARGEST = 1000.0
IDENTITY = ("gam", "gam[listing]", "gam[cv-attention]", "gam[yolo-grouped]")


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> object:
    """Shifts that keep the hidden channels open, so that every parameter counts; a gate of order one."""
    if key in ("channel_attention.0.bias", "spatial_attention.1.bias"):
        return rng.uniform(0.5, 1.0, shape)
    if key == "channel_attention.2.weight":
        return rng.normal(0.0, 0.05 / np.sqrt(shape[1]), shape)
    if key.endswith("weight") and len(shape) == 4:
        return rng.normal(0.0, 0.2 / np.sqrt(np.prod(shape[1:])), shape)
    return None
