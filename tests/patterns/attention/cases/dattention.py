"""DAttention, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("dattention", {"heads": 2, "groups": 1}),
    ("dattention", {"heads": 4, "groups": 2, "stride": 2, "kernel": 2, "offset_range": -1.0}),
    ("dattention[table]", {"heads": 2, "groups": 2, "stride": 3, "kernel": 5}),
]
INERT = {"proj_k.bias"}  # it adds the same to all logits of a query
