"""GC in the tests that go over every block."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("gc", {"hidden": 4}),
    ("gc[official-mul]", {"reduction": 2}),
    ("gc[timm]", {"hidden": 5}),
    ("gc[timm-add]", {"hidden": 5}),
    ("gc[official-both]", {"hidden": 4}),
    ("gc[timm-both]", {"hidden": 5}),
    ("gc[timm-both]", {"hidden": 5, "pooling": "average"}),
]
IDENTITY = {"gc", "gc[official-mul]", "gc[official-both]", "gc[timm]", "gc[timm-add]", "gc[timm-both]"}
INERT = ("conv_mask.bias", "conv_attn.bias")
"""They cancel in the softmax."""


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array | None:
    """A mask that is neither flat nor a single position where the input is of order twenty."""
    if key in ("conv_mask.weight", "conv_attn.weight"):
        return np.asarray(rng.normal(0.0, 0.1, shape) / np.sqrt(shape[1]))
    if key.endswith((".0.bias", "fc1.bias")):  # values of one size would be as good as lost in their normalisation
        return np.linspace(-1.0, 1.3, shape[0])
    if key.endswith((".3.weight", "fc2.weight", ".3.bias", "fc2.bias")):  # a context that does not cancel itself out
        return np.asarray(rng.uniform(0.2, 0.8, shape) / np.sqrt(np.prod(shape[1:])))
    if len(shape) == 3:
        return np.asarray(rng.uniform(0.3, 1.0, shape) * rng.choice([-1.0, 1.0], shape))
    return None
