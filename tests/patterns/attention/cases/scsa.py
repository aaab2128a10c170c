"""SCSA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("scsa", {"head_num": 2}),
    ("scsa", {"head_num": 4, "window_size": 3, "qkv_bias": True}),
]
IDENTITY = ("scsa",)
