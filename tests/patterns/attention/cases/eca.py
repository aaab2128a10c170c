"""ECA in the tests that go over every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("eca", {"bias": False}),
    ("eca", {"kernel": 5, "bias": True}),
    ("eca[timm-ceca]", {"adaptive": True, "bias": False}),
]
IDENTITY = {"eca"}
