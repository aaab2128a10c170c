"""Shuffle Attention, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("shuffle", {"half": 2}),
    ("shuffle", {"groups": 2}),
]
FACTOR = 4.0
"""On a constant map, the rounding errors of a sum over the whole map, divided by the root of the eps: 316-fold."""
