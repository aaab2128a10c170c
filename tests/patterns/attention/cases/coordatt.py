"""Coordinate Attention, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("coordatt", {"hidden": 5}),
    ("coordatt[official]", {"bn_eps": 1e-3}),
    ("coordatt[timm]", {"skip": True}),
    ("coordatt[timm]", {"hidden": 3}),
    ("coordatt[timm-simple]", {}),
    ("coordatt[timm-simple]", {"hidden": 3, "skip": True}),
]
IDENTITY = ("coordatt", "coordatt[official]", "coordatt[timm-simple]")
