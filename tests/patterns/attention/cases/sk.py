"""SK in the tests that go over every block."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("sk", {"groups": 2, "hidden": 3, "bn_eps": 1e-3}),
    ("sk[paper]", {"groups": 4, "hidden": 3, "bias": True}),
    ("sk[official]", {"groups": 2, "hidden": 3, "bn_eps": 1e-3}),
    ("sk[external-attention]", {"hidden": 5, "groups": 2}),
    ("sk[external-attention]", {"hidden": 5, "groups": 2, "kernels": "3,5"}),
    ("sk[timm]", {"hidden": 3}),
    ("sk[timm]", {"hidden": 3, "groups": 4, "split": False}),
]


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array | None:
    """Paths somewhat smaller than the input, as every intermediate result is rounded in half precision, and a choice
    that does not turn on the last bits of what it is made from."""
    if len(shape) == 1 and key.endswith("weight"):
        return rng.uniform(0.3, 0.6, shape)
    if len(shape) == 1 and key.endswith("bias") and ("fc" in key or "bn" in key):
        return rng.uniform(0.2, 0.5, shape)
    choice = "fc" in key
    return rng.normal(0.02, 0.15 if choice else 0.3, shape) / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else None
