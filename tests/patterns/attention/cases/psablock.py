"""PSABlock, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("psablock", {"num_heads": 2}),
    ("psablock", {"fused": True, "attn_ratio": 0.25}),
    ("psablock", {"num_heads": 2, "shortcut": False, "bn_eps": 1e-05}),
    ("psablock[area]", {"num_heads": 2, "area": 1}),
    ("psablock[area]", {"area": 1, "hidden": 5, "fused": True, "pe_kernel": 5}),
]
IDENTITY = {"psablock num_heads=2", "psablock fused=True attn_ratio=0.25", "psablock[area]"}
FACTOR = 3  # five convolutions one behind the other
