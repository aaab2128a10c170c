"""CGA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("cga", {"heads": 2, "window": 4, "key_dim": 4, "hidden": 5}),
    ("cga[unit]", {"heads": 2, "window": 3, "key_dim": 2, "kernel": 3, "bn_eps": 1e-3}),
    ("cga[unit]", {"heads": 1, "window": 30, "key_dim": 3}),
]
IDENTITY = {"cga"}
