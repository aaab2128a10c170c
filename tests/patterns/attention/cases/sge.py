"""SGE in the tests that go over every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [("sge", {"groups": 2}), ("sge", {"groups": 4})]
IDENTITY = {"sge"}
