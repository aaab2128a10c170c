"""LCT in the tests that go over every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [("lct", {"groups": 2}), ("lct", {"groups": 1, "eps": 1e-3})]
IDENTITY = {"lct"}
