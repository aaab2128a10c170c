"""ParNet attention, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [("parnet", {}), ("parnet", {"bn_eps": 1e-3})]
FACTOR = 2  # two convolutions and the map itself are added up
