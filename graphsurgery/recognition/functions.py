"""Models whose modules are calls of local functions: seen with the calls inlined, and reported in terms of the calls.

What lies within one call cannot be named in the file, so a block counts only if it consists of whole calls and nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from copy import copy
from dataclasses import replace
from functools import cached_property

import onnx

from ..errors import ModelError
from ..graph.index import GraphIndex
from ..graph.local_functions import written_out
from .block import RecognisedBlock
from .graph_view import View


class Expanded:
    """A model, and its graph with the calls written out.

    ``caller``: index of a node there -> of the node in the file that it belongs to.
    """

    def __init__(self, index: GraphIndex, flat: onnx.ModelProto, caller: Mapping[int, int]) -> None:
        model = copy(index.model)  # its payload stays where it is
        model.structure, model.graph = flat, flat.graph
        self.inside = View(GraphIndex(model))
        """with the calls written out"""
        self.file = View(index, values=self.inside.values)
        """as the file is; of what a call gives, only its body shows what is a value and what a size"""
        self._caller = caller
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
            table.setdefault(self._caller[node_index], set()).add(node_index)
        return table

    def within(self, node_index: int) -> Set[int]:
        """Indices of the nodes that count in a node of the file: those of a call, or it alone."""
        return self._working.get(node_index, set())

    def in_the_file(self, block: RecognisedBlock) -> list[RecognisedBlock]:
        """A block in terms of the file; its parts, if it begins or ends within a call."""
        parts = [(name, outer) for name, part in block.parts for outer in self.in_the_file(part)]
        callers = {self._caller[node_index] for node_index in block.nodes}
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
    functions = {(function.domain, function.name) for function in model.functions}
    if not any((node.domain, node.op_type) in functions for node in index.nodes):
        return None
    try:
        flat = written_out(model, index.model.name)
    except ModelError:  # the calls then stay what they are
        return None
    caller = dict(_callers(index.nodes, flat.graph.node))
    if len(caller) != len(flat.graph.node):
        return None
    return Expanded(index, flat, caller)


def _callers(before: Sequence[onnx.NodeProto], after: Sequence[onnx.NodeProto]) -> Iterator[tuple[int, int]]:
    """Which node each written-out node comes from: they keep the order, and the outputs of a call keep their names."""
    nodes = iter(enumerate(after))
    for node_index, node in enumerate(before):
        awaited = {name for name in node.output if name}
        while awaited:
            found = next(nodes, None)
            if found is None:
                return
            awaited.difference_update(found[1].output)
            yield found[0], node_index
