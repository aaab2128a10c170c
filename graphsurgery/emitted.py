"""Emitted: what a template has become; Names: those that it may not use again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx


@dataclass
class Emitted:
    """What a template has become: protobuf messages and where each parameter of the block went."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]
    output: str
    stored: dict[str, dict[str, Any]]
    """parameter key -> how to read it back from the model (see folding.read_back)"""
    warnings: list[str]


@dataclass
class Names:
    """Names that are taken. ``reserve`` gives the wished name, or the first free one with _1, _2 ... behind it."""

    taken: set[str] = field(default_factory=set)

    def reserve(self, wish: str) -> str:
        """A free name, taken from now on."""
        name, count = wish, 0
        while name in self.taken:
            count += 1
            name = f"{wish}_{count}"
        self.taken.add(name)
        return name
