"""AIFI, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("aifi", {"heads": 2, "hidden": 10}),
    ("aifi[ultralytics]", {"heads": 4, "hidden": 9}),
    ("aifi[ultralytics]", {"heads": 2, "hidden": 9, "normalize_before": True}),
    ("aifi", {"heads": 2, "hidden": 10, "activation": "relu", "temperature": 100.0}),
    ("aifi[efficient-additive]", {"hidden": 9}),
    ("aifi[hilo]", {"heads": 2, "hidden": 10}),
    ("aifi[hilo]", {"heads": 4, "hidden": 9, "window": 3, "alpha": 0.25, "qkv_bias": True}),
    ("aifi[hilo]", {"heads": 2, "hidden": 9, "window": 1}),
    ("aifi[hilo]", {"heads": 1, "hidden": 9, "alpha": 0.0}),
]
IDENTITY = {"aifi[ultralytics] heads=2 hidden=9 normalize_before=True"}  # behind a LayerNorm there is none
FACTOR = 3  # the LayerNorm of a constant multiplies the rounding of its mean by 316
