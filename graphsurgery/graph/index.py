"""GraphIndex: who makes a tensor, who reads it, which names are taken. Built once per model, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import onnx

from ..errors import ModelError
from ..modelfile.model import ModelFile
from ..modelfile.subgraphs import reads, subgraphs
from ..modelfile.wire import text

STANDARD = frozenset({"", "ai.onnx"})
"""how models spell the domain of ONNX's own operators"""


class GraphIndex:
    """The main graph of a model, indexed by tensor. Nodes are named by their position in the file."""

    def __init__(self, model: ModelFile) -> None:
        self.model = model
        graph = model.structure.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self._reads = [frozenset(reads(node)) for node in self.nodes]
        self.producer: dict[str, int] = {}
        """tensor -> position of the node that makes it"""
        self.consumers: dict[str, list[int]] = {}
        """tensor -> positions of the nodes that read it, those whose subgraphs capture it included, each once, in
        order
        """
        self.inputs: dict[str, onnx.ValueInfoProto] = {value.name: value for value in graph.input}
        self.outputs: dict[str, onnx.ValueInfoProto] = {value.name: value for value in graph.output}
        self.initializers: dict[str, int] = {tensor.name: i for i, tensor in enumerate(graph.initializer)}
        for position, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = position
            for name in self._reads[position]:
                self.consumers.setdefault(name, []).append(position)
        self._check_names()

    def _check_names(self) -> None:
        tables = (self.producer, self.consumers, self.inputs, self.outputs, self.initializers)
        for name in (*(name for table in tables for name in table), *(node.name for node in self.nodes)):
            if text(name) is None:
                raise ModelError(f"{self.model.name} has the name {name!r} in it, which is not UTF-8 text")

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor is an initializer or the output of a Constant node."""
        if tensor in self.initializers:
            return True
        position = self.producer.get(tensor)
        return position is not None and self.nodes[position].op_type == "Constant"

    def is_activation(self, tensor: str) -> bool:
        """Whether a tensor depends on an input of the model, not on constants alone."""
        node_index = self.producer.get(tensor)
        if node_index is None:
            return tensor in self.inputs and tensor not in self.initializers
        return node_index in self.active

    def ancestors(self, tensor: str) -> list[int]:
        """Positions of the nodes that a tensor depends on, each behind those that it depends on itself."""
        found: dict[int, None] = {}
        entered: set[int] = set()
        pending = [tensor]
        while pending:
            position = self.producer.get(pending[-1])
            if position is None or position in found:
                pending.pop()
            elif position in entered:  # all that it reads has been seen to
                found[position] = None
            else:
                entered.add(position)
                pending += sorted(self.reads(position))
        return list(found)

    def reads(self, position: int) -> frozenset[str]:
        """The tensors that a node reads, those that its subgraphs capture included."""
        return self._reads[position]

    def label(self, position: int) -> str:
        """How messages call a node: its name, or operator and position where it has none."""
        node = self.nodes[position]
        return node.name or f"{node.op_type}#{position}"

    @cached_property
    def active(self) -> set[int]:
        """Positions of the nodes whose output depends on an input of the model, not on constants alone."""
        found: set[int] = set()
        pending = [name for name in self.inputs if name not in self.initializers]
        while pending:  # in no particular order: some converters leave their nodes unsorted
            for position in self.consumers.get(pending.pop(), ()):
                if position not in found:
                    found.add(position)
                    pending += self.nodes[position].output
        return found

    @cached_property
    def node_names(self) -> dict[str, list[int]]:
        """node name -> positions; blank names are left out, duplicate names have several."""
        table: dict[str, list[int]] = {}
        for position, node in enumerate(self.nodes):
            if node.name:
                table.setdefault(node.name, []).append(position)
        return table

    @cached_property
    def names(self) -> set[str]:
        """Every name in the model, of nodes and of tensors, subgraphs and functions included."""
        return set(_names_in(self.model.structure))


def _names_in(model: onnx.ModelProto) -> Iterator[str]:
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        if isinstance(graph, onnx.GraphProto):
            for value in (*graph.input, *graph.output, *graph.value_info):
                yield value.name
            for tensor in graph.initializer:
                yield tensor.name
            for sparse in graph.sparse_initializer:
                yield sparse.values.name
        for node in graph.node:
            yield node.name
            yield from node.output
            yield from node.input
            pending += subgraphs(node)
