"""Context Anchor Attention, for the tests of every block."""

from __future__ import annotations

import numpy as np

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("caa", {}),
    ("caa[pkinet]", {"h_kernel_size": 5, "v_kernel_size": 13}),
    ("caa[bn-silu]", {"bn_eps": 1e-5}),
]
IDENTITY = ("caa", "caa[pkinet]", "caa[bn-silu]")


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> object:
    """Logits of order one where x is of order twenty: beyond that half precision has no digits left for them."""
    return rng.normal(0.0, 0.15 / np.sqrt(shape[1]), shape) if key == "conv2.conv.weight" else None
