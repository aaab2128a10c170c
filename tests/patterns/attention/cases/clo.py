"""CloAttention, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("clo", {"heads": 2, "local_heads": 1}),
    ("clo", {"heads": 2, "local_heads": 1, "kernel": 3, "window": 1, "qkv_bias": False}),
]
LARGEST = 20.0  # q * k grows with the square of the input, and what follows leaves float16 beyond
NOT_READ_BY = {"OpenCv"}  # its Tanh is not a number beyond 45
