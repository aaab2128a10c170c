"""MHSA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("mhsa", {"heads": 2}),
    ("mhsa", {"heads": 2, "key_dim": 5, "qkv_bias": True, "scale_pos_embed": True}),
    ("mhsa[yolo]", {"heads": 2}),
    ("mhsa[yolo]", {"heads": 2, "pos_emb": True}),
    ("mhsa[lucidrains]", {"heads": 2}),
    ("mhsa[lucidrains]", {"heads": 2, "positions": "relative"}),
]
INERT = {"key.bias"}  # the same for every key: no softmax sees it
