"""SEAM, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("seam", {"reduction": 4}),
    ("seam", {"hidden": 3, "depth": 2, "bn_eps": 1e-3}),
    ("seam[multi]", {"reduction": 4}),
    ("seam[multi]", {"hidden": 3, "depth": 2}),
    ("seam[multi]", {"reduction": 4, "activation": "silu"}),
]
IDENTITY = {"seam"}
