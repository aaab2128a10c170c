"""Models whose modules are calls of local functions: seen with the calls written out, and told in terms of the calls.

What lies within one call cannot be named in the file, so a block counts only if it consists of whole calls and nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass, replace

import onnx
from onnx import inliner

from ..graphindex import GraphIndex
from .found import Found


@dataclass(frozen=True)
class Expanded:
    """A graph with its calls written out."""

    index: GraphIndex
    caller: Mapping[int, int]
    """position of a node -> of the node in the file that it belongs to"""

    def told(self, block: Found, working: Set[int]) -> list[Found]:
        """A block by positions in the file; its parts, if it begins or ends within a call.

        ``working``: positions of the nodes that count; the others of a call compute sizes.
        """
        parts = [(name, told) for name, part in block.parts for told in self.told(part, working)]
        callers = {self.caller[position] for position in block.nodes}
        whole = {position for position in working if self.caller[position] in callers}
        if whole - block.nodes:
            return [part for _, part in parts]
        roots = {part.root for _, part in block.parts}
        return [replace(block, nodes=frozenset(callers), parts=tuple(p for p in parts if p[1].root in roots))]


def expand(index: GraphIndex) -> Expanded | None:
    """The graph with its calls written out; None where it has none, or where they cannot be."""
    model = index.model.structure
    functions = {(function.domain, function.name) for function in model.functions}
    if not any((node.domain, node.op_type) in functions for node in index.nodes):
        return None
    try:
        written_out = inliner.inline_local_functions(model)
    except Exception:  # recursive or incomplete functions: the calls then stay what they are
        return None
    caller = dict(_callers(index.nodes, written_out.graph.node))
    if len(caller) != len(written_out.graph.node):
        return None
    view = copy(index.model)  # its payload stays where it is
    view.structure = written_out
    return Expanded(GraphIndex(view), caller)


def _callers(before: Sequence[onnx.NodeProto], after: Sequence[onnx.NodeProto]) -> Iterator[tuple[int, int]]:
    """Which node each written-out node comes from: they keep the order, and the outputs of a call keep their names."""
    nodes = iter(enumerate(after))
    for position, node in enumerate(before):
        awaited = {name for name in node.output if name}
        while awaited:
            found = next(nodes, None)
            if found is None:
                return
            awaited.difference_update(found[1].output)
            yield found[0], position
