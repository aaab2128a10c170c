"""LSK, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("lsk", {}),
    ("lsk[attention]", {}),
]
IDENTITY = {"lsk", "lsk[attention]"}
LARGEST = 200.0  # the result grows with the square of the input, and leaves float16 beyond
