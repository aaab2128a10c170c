"""LSKA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("lska", {}),
    ("lska", {"k_size": 11}),
    ("lska", {"k_size": 23}),
    ("lska[wrapper]", {"k_size": 11}),
]
IDENTITY = {"lska", "lska[wrapper]"}
LARGEST = 200.0  # the result grows with the square of the input, and leaves float16 beyond
