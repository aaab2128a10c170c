"""Double attention, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("a2", {"c_m": 5, "c_n": 7}),
]
INERT = {"convB.bias"}  # the same at every position: no softmax sees it
