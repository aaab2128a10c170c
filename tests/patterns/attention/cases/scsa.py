"""SCSA, for the tests of every block; test_scsa.py has softmax, under which some shifts do nothing."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("scsa", {"head_num": 2}),
    ("scsa", {"head_num": 4, "window_size": 3, "qkv_bias": True}),
    ("scsa", {"head_num": 2, "window_size": 3, "down_sample_mode": "max_pool", "group_kernel_sizes": "3,5,1,7"}),
    ("scsa", {"head_num": 2, "window_size": 1, "down_sample_mode": "recombination"}),
    ("scsa", {"head_num": 2, "window_size": -1}),
]
IDENTITY = (
    "scsa head_num=2",
    "scsa head_num=4 window_size=3 qkv_bias=True",
    "scsa head_num=2 window_size=3 down_sample_mode=max_pool group_kernel_sizes=3,5,1,7",
    "scsa head_num=2 window_size=1 down_sample_mode=recombination",
    "scsa head_num=2 window_size=-1",
)
