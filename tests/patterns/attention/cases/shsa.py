"""SHSA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("shsa", {}),
    ("shsa", {"pdim": 3, "qk_dim": 4, "hidden": 5, "bn_eps": 1e-3}),
    ("shsa", {"activation": "silu"}),
    ("shsa[unit]", {"qk_dim": 8}),
]
IDENTITY = {"shsa"}
