"""ELA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("ela", {"norm_groups": 4}),
    ("ela[base]", {"norm_groups": 2, "kernel_size": 3}),
    ("ela[tiny]", {"norm_groups": 4}),
    ("ela[cv-attention]", {"norm_groups": 4}),
    ("ela[timm]", {}),
]
# eight channels at a time do not fit the sites of twelve channels: see test_ela.py
ELSEWHERE = ("ela[small]", "ela[large]")
IDENTITY = ("ela", "ela[base]", "ela[tiny]", "ela[cv-attention]", "ela[timm]")
