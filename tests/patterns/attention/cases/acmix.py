"""ACmix, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("acmix", {"heads": 2, "kernel": 3, "conv_bias": True}),
    ("acmix", {"heads": 4, "kernel": 7}),
    ("acmix", {"heads": 1, "kernel": 5}),
]
INERT = {"conv_p.bias"}  # it adds the same to all logits of a position
