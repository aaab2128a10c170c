"""Models whose modules are calls of local functions, and those with blocks in the place of something: seen with the
calls written out and with what was there before, and reported in terms of the calls and of the blocks.

What lies within one of these cannot be named in the file, so a block counts only if it consists of whole calls, whole
blocks and nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import cached_property

import onnx

from ..errors import ModelError
from ..graph.index import GraphIndex
from ..graph.local_functions import by_key, key_of
from ..graph.origins import Origin
from ..graph.parts_put_back import PutBack, parts_put_back
from ..graph.written_out import with_origins
from .block import RecognisedBlock
from .graph_view import View


class Expanded:
    """A model, and its graph with the calls written out and parts put back.

    ``origins``: of each node there, where it stands in the file. ``blocks``: the node that stands for a block that
    replaced something -> all nodes of that block.
    """

    def __init__(
        self,
        index: GraphIndex,
        flat: onnx.ModelProto,
        origins: Sequence[Origin],
        blocks: Mapping[int, frozenset[int]],
    ) -> None:
        model = copy(index.model)  # its payload stays where it is
        model.structure, model.graph = flat, flat.graph
        self.inside = View(GraphIndex(model))
        """with the calls written out"""
        within = {name for own in blocks.values() for each in own for name in index.named_outputs[each]}
        self.file = View(index, values=self.inside.values | within)
        """as the file is; of what a call gives, only its body shows what is a value and what a size"""
        self.origins = origins
        self.has_calls = any(each.calls for each in origins)
        self._blocks = blocks
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
        for last, own in self._blocks.items():
            table.update(dict.fromkeys(own, table.get(last, set())))
        return table

    def within(self, node_index: int) -> Set[int]:
        """Indices of the nodes that count in a node of the file: those of a call, or of what its block replaced, or it
        alone.
        """
        return self._working.get(node_index, set())

    def in_the_file(self, block: RecognisedBlock) -> list[RecognisedBlock]:
        """A block in terms of the file; its parts, if it begins or ends within a call."""
        parts = [(name, outer) for name, part in block.parts for outer in self.in_the_file(part)]
        callers = {self.origins[node_index].caller for node_index in block.nodes}
        root = self.named(block.root)
        if root is None or any(self.within(node_index) - block.nodes for node_index in callers):
            return [part for _, part in parts]
        roots = {self.named(part.root) for _, part in block.parts}
        nodes = (self._blocks.get(each, frozenset({each})) for each in callers)
        return [
            replace(
                block,
                nodes=frozenset[int]().union(*nodes),
                parts=tuple(part for part in parts if part[1].root in roots),
                entries=tuple(self.named(entry) or entry for entry in block.entries),
                output=self.file.outlet(root),
                root=root,
            )
        ]


def expand(index: GraphIndex) -> Expanded | None:
    """The model with its calls written out and parts put back; None where it has neither, or where the calls cannot
    be written out.
    """
    before = parts_put_back(index)
    model = before.structure if before is not None else index.model.structure
    made: tuple[onnx.ModelProto, Sequence[Origin]] | None = None
    functions = by_key(model.functions)
    if any(key_of(node) in functions for node in model.graph.node):
        with suppress(ModelError):  # the calls then stay what they are
            made = with_origins(model, index.model.name)
    if before is None:
        return Expanded(index, *made, {}) if made is not None else None
    flat, origins = made or (model, [Origin((), position, node) for position, node in enumerate(model.graph.node)])
    return Expanded(index, flat, [_in_file(each, before) for each in origins], before.blocks)


def _in_file(origin: Origin, before: PutBack) -> Origin:
    """Where a node of a graph with parts put back stands in the file."""
    if not origin.calls:
        return origin._replace(position=before.positions[origin.position])
    first, *others = origin.calls
    return origin._replace(calls=(first._replace(position=before.positions[first.position]), *others))
