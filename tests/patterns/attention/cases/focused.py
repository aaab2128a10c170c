"""Focused linear attention, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("focused", {"heads": 2}),
    ("focused", {"heads": 2, "factor": 4, "kernel": 3, "qkv_bias": False}),
    ("focused[cswin]", {"heads": 2}),
    ("focused[cswin]", {"heads": 1, "kernel": 1, "factor": 1}),
]
