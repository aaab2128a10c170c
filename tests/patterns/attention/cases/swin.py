"""Swin, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("swin", {"heads": 2, "window": 4}),
    ("swin[shifted]", {"heads": 2, "window": 4, "hidden": 10}),
    ("swin[shifted]", {"window": 5, "qkv_bias": False}),
]
IDENTITY = {"swin", "swin[shifted]"}
