"""CPCA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("cpca", {"hidden": 3}),
]
LARGEST = 200.0  # the result grows with the square of the input, and leaves float16 beyond
