"""A graph with the parts put back that blocks stand in the place of, for those who look for what it was made of.

Nothing is written or run: the constants of a part stand as nodes, and the initializers of the blocks stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from ..errors import InsertionError
from ..modelfile.record import Insertion
from .index import GraphIndex


@dataclass(frozen=True)
class PutBack:
    """A model, and where its nodes stand in the file."""

    structure: onnx.ModelProto
    positions: tuple[int, ...]
    """of each node of its main graph: its index in the file; for those of a part, the last node of the block"""
    blocks: dict[int, frozenset[int]]
    """last node of a block in the file -> all of its nodes"""


def parts_put_back(index: GraphIndex) -> PutBack | None:
    """The model with what blocks of its main graph have replaced; None where none has."""
    blocks = dict[int, tuple[Insertion, frozenset[int]]]()
    for insertion in index.insertions:
        last = index.producer.get(insertion.output_tensor)
        if insertion.replaced is not None and last is not None and index.insertion_of.get(last) == insertion:
            own = frozenset(each for each, of in index.insertion_of.items() if of == insertion)
            blocks[last] = insertion, own
    if not blocks:
        return None
    gone = frozenset[int]().union(*(own for _, own in blocks.values()))
    nodes, positions = list[onnx.NodeProto](), list[int]()
    try:
        for n, node in enumerate(index.nodes):
            there = list(_part(blocks[n][0])) if n in blocks else [] if n in gone else [node]
            nodes += there
            positions += [n] * len(there)
    except InsertionError:  # a record that is damaged
        return None
    structure = onnx.ModelProto()
    structure.CopyFrom(index.model.structure)
    del structure.graph.node[:]
    structure.graph.node.extend(nodes)
    return PutBack(structure, tuple(positions), {n: own for n, (_, own) in blocks.items()})


def _part(insertion: Insertion) -> Iterator[onnx.NodeProto]:
    """The nodes that a block stands in the place of, under the present names of what they read and give."""
    replaced = insertion.replaced
    assert replaced is not None
    graph = replaced.graph()
    for tensor in graph.initializer:
        yield onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
    inputs, outputs = {replaced.input: insertion.site.tensor}, {replaced.output: insertion.output_tensor}
    for node in graph.node:
        node.input[:] = [inputs.get(name, outputs.get(name, name)) for name in node.input]
        node.output[:] = [outputs.get(name, name) for name in node.output]
        yield node
