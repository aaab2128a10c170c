"""Models whose modules are calls of local functions: seen with the calls inlined, and reported in terms of the calls.

What lies within one call cannot be named in the file, so a block counts only if it consists of whole calls and nodes.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from copy import copy
from dataclasses import replace
from functools import cached_property

import onnx

from ..errors import ModelError
from ..graph.index import GraphIndex
from ..graph.local_functions import by_key, key_of
from ..graph.origins import Origin
from ..graph.written_out import with_origins
from .block import RecognisedBlock
from .graph_view import View


class Expanded:
    """A model, and its graph with the calls written out.

    ``origins``: of each node there, where it stands in the file.
    """

    def __init__(self, index: GraphIndex, flat: onnx.ModelProto, origins: Sequence[Origin]) -> None:
        model = copy(index.model)  # its payload stays where it is
        model.structure, model.graph = flat, flat.graph
        self.inside = View(GraphIndex(model))
        """with the calls written out"""
        self.file = View(index, values=self.inside.values)
        """as the file is; of what a call gives, only its body shows what is a value and what a size"""
        self.origins = origins
        self._named: dict[str, str] = {}
        for name in (*index.inputs, *(name for node in index.nodes for name in node.output if name)):
            self._named.setdefault(self.inside.root(name), self.file.root(name))

    def named(self, tensor: str) -> str | None:
        """The root in the file of a tensor inside; None for what lies within a call."""
        return self._named.get(self.inside.root(tensor))

    @cached_property
    def _working(self) -> dict[int, set[int]]:
        """Node index in the file -> indices of the nodes that count; the others of a call compute sizes."""
        table: dict[int, set[int]] = {}
        for node_index in self.inside.active:
            table.setdefault(self.origins[node_index].caller, set()).add(node_index)
        return table

    def within(self, node_index: int) -> Set[int]:
        """Indices of the nodes that count in a node of the file: those of a call, or it alone."""
        return self._working.get(node_index, set())

    def in_the_file(self, block: RecognisedBlock) -> list[RecognisedBlock]:
        """A block in terms of the file; its parts, if it begins or ends within a call."""
        parts = [(name, outer) for name, part in block.parts for outer in self.in_the_file(part)]
        callers = {self.origins[node_index].caller for node_index in block.nodes}
        root = self.named(block.root)
        if root is None or any(self.within(node_index) - block.nodes for node_index in callers):
            return [part for _, part in parts]
        roots = {self.named(part.root) for _, part in block.parts}
        return [
            replace(
                block,
                nodes=frozenset(callers),
                parts=tuple(part for part in parts if part[1].root in roots),
                entries=tuple(self.named(entry) or entry for entry in block.entries),
                output=self.file.outlet(root),
                root=root,
            )
        ]


def expand(index: GraphIndex) -> Expanded | None:
    """The model with its calls written out; None where it has none, or where they cannot be."""
    model = index.model.structure
    functions = by_key(model.functions)
    if not any(key_of(node) in functions for node in index.nodes):
        return None
    try:
        made = with_origins(model, index.model.name)
    except ModelError:  # the calls then stay what they are
        return None
    return Expanded(index, *made) if made is not None else None
