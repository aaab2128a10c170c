"""LKA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [("lka", {}), ("lka[wrapper]", {})]
IDENTITY = {"lka", "lka[wrapper]"}
LARGEST = 200.0  # the result grows with the square of the input, and leaves float16 beyond
