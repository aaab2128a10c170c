"""BRA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("bra", {"heads": 2, "windows": 3, "topk": 2}),
    ("bra", {"heads": 4, "windows": 7, "topk": 5, "kernel": 5, "qk_dim": 4}),
    ("bra[nchw]", {"heads": 2, "windows": 2, "topk": 3}),
    ("bra[nchw]", {"heads": 1, "windows": 1, "topk": 1}),
]
