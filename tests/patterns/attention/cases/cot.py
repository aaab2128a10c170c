"""CoT, for the tests of every block."""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("cot", {}),
    ("cot", {"kernel": 5, "bn_eps": 1e-3}),
]
INERT = {"attention_embed.3.bias"}  # the same at every position, in front of a softmax over them
ELSEWHERE = ("cot[cotnet]",)  # wants a multiple of eight channels: test_cot.py


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray[Any, Any] | None:
    """Weights whose mean over the taps is as large as those of other layers: it is all that counts."""
    if key != "attention_embed.3.weight":
        return None
    taps = shape[0] // (2 * shape[1])
    return rng.normal(0.05, np.sqrt(taps / shape[1]), shape)
