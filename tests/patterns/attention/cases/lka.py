"""LKA, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("lka", {}),
    ("lka[wrapper]", {}),
    ("lka[deformable]", {}),
    ("lka[deformable-wrapper]", {}),
]
IDENTITY = {"lka", "lka[wrapper]", "lka[deformable]", "lka[deformable-wrapper]"}
NOT_READ_BY = {"OpenVino: deform-conv", "OpenCv: deform-conv"}  # they have no DeformConv
LARGEST = 200.0  # the result grows with the square of the input, and leaves float16 beyond
