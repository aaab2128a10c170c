"""MSDA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("msda", {"heads": 4, "scales": 2, "qkv_bias": True}),
    ("msda", {"heads": 4, "scales": 4, "first": 2, "step": 2}),
    ("msda", {"heads": 2, "scales": 1, "kernel": 5}),
]
