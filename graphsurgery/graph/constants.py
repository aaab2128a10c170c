"""Constants: what the tensors of a model hold that do not depend on its inputs, however an exporter wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..feature_map import Array
from ..modelfile import payload
from ..modelfile.operators import operator
from .index import GraphIndex
from .reference import evaluate
from .shape_arithmetic import compute


class Constants:
    """Each is read, or computed, when it is asked for, and once."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._known: dict[str, Array | None] = {}

    @cached_property
    def _stated(self) -> dict[str, tuple[int, ...]]:
        """Shapes that need no reading."""
        graph = self._index.model.structure.graph
        return {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}

    def has(self, name: str) -> bool:
        """Whether a tensor is a constant."""
        index = self._index
        return name in index.initializers or (
            (node := index.producer.get(name)) is not None and node not in index.active
        )

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a constant; None where its value cannot be told."""
        if (stated := self._stated.get(name)) is not None:
            return stated
        value = self.value(name)
        return None if value is None else value.shape

    def value(self, name: str) -> Array | None:
        """What a constant holds; None where it cannot be told."""
        if name not in self._known:
            self._known[name] = None  # for constants that depend on themselves
            self._known[name] = self._computed(name)
        return self._known[name]

    def _computed(self, name: str) -> Array | None:
        try:
            return self._index.model.tensor(name)
        except KeyError:
            pass
        node = self._index.producing(name)
        if node is None:
            return None
        if operator(node) == "Constant":
            stated = payload.of_constant(node)
            return None if stated is None else payload.array(stated)
        given = {each: self.value(each) for each in node.input if each}
        known = {each: value for each, value in given.items() if value is not None}
        if len(known) != len(given):
            return None
        opsets = self._index.model.structure.opset_import
        if (computed := compute(node, known, opsets)) is not None:
            return computed
        found = evaluate(node, known, opsets)
        return (found or {}).get(name)

    def integers(self, names: Sequence[str]) -> set[int]:
        """The whole numbers in some small constants of whole numbers."""
        found = set[int]()
        for name in names:
            shape = self.shape(name)
            if shape is not None and int(np.prod(shape)) <= 16:
                value = self.value(name)
                if value is not None and value.dtype.kind in "iu":
                    found.update(map(int, value.ravel()))
        return found
