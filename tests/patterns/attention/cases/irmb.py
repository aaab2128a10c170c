"""iRMB, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("irmb", {"heads": 2, "window": 4, "hidden": 6}),
    ("irmb", {"heads": 1, "window": 3, "exp_ratio": 1.5, "dw_kernel": 5, "qkv_bias": False}),
    ("irmb", {"head_dim": 4, "window": 4, "exp_ratio": 1, "activation": "silu", "proj_bias": True}),
]
IDENTITY = {"irmb"}
