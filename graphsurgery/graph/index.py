"""GraphIndex: the producer and the consumers of every tensor, and the names that are taken."""

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
    """The main graph of a model, indexed by tensor. A node is named by its index in the file."""

    def __init__(self, model: ModelFile) -> None:
        self.model = model
        graph = model.structure.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self._reads = [frozenset(reads(node)) for node in self.nodes]
        self.producer: dict[str, int] = {}
        """tensor -> index of the node that produces it"""
        self.consumers: dict[str, list[int]] = {}
        """tensor -> indexes of the nodes that read it, those whose subgraphs do so included, each once, in order"""
        self.inputs: dict[str, onnx.ValueInfoProto] = {value.name: value for value in graph.input}
        self.outputs: dict[str, onnx.ValueInfoProto] = {value.name: value for value in graph.output}
        self.initializers: dict[str, int] = {tensor.name: i for i, tensor in enumerate(graph.initializer)}
        for node_index, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = node_index
            for name in self._reads[node_index]:
                self.consumers.setdefault(name, []).append(node_index)
        self._check_names()

    def _check_names(self) -> None:
        tables = (self.producer, self.consumers, self.inputs, self.outputs, self.initializers)
        own = (name for node in self.nodes for name in (node.name, node.op_type))
        for name in (*(name for table in tables for name in table), *own):
            if text(name) is None:
                raise ModelError(f"{self.model.name} has the name {name!r} in it, which is not UTF-8 text")

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor is an initializer or the output of a Constant node."""
        if tensor in self.initializers:
            return True
        node_index = self.producer.get(tensor)
        return node_index is not None and self.nodes[node_index].op_type == "Constant"

    def is_activation(self, tensor: str) -> bool:
        """Whether a tensor depends on an input of the model, not on constants alone."""
        node_index = self.producer.get(tensor)
        if node_index is None:
            return tensor in self.inputs and tensor not in self.initializers
        return node_index in self.active

    def ancestors(self, tensor: str) -> list[int]:
        """Indexes of the nodes that a tensor depends on, each after those that it depends on itself."""
        found: dict[int, None] = {}
        entered: set[int] = set()
        pending = [tensor]
        while pending:
            node_index = self.producer.get(pending[-1])
            if node_index is None or node_index in found:
                pending.pop()
            elif node_index in entered:  # all that it reads has been seen to
                found[node_index] = None
            else:
                entered.add(node_index)
                pending += sorted(self.reads(node_index))
        return list(found)

    def reads(self, node_index: int) -> frozenset[str]:
        """The tensors that a node reads, those that its subgraphs capture included."""
        return self._reads[node_index]

    def label(self, node_index: int) -> str:
        """How messages call a node: its name, or operator and index where it has none."""
        node = self.nodes[node_index]
        return node.name or f"{node.op_type}#{node_index}"

    @cached_property
    def active(self) -> set[int]:
        """Indexes of the nodes whose output depends on an input of the model, not on constants alone."""
        found: set[int] = set()
        pending = [name for name in self.inputs if name not in self.initializers]
        while pending:  # in no particular order: some converters leave their nodes unsorted
            for node_index in self.consumers.get(pending.pop(), ()):
                if node_index not in found:
                    found.add(node_index)
                    pending += self.nodes[node_index].output
        return found

    @cached_property
    def node_names(self) -> dict[str, list[int]]:
        """node name -> node indexes; blank names are left out, duplicate names have several."""
        table: dict[str, list[int]] = {}
        for node_index, node in enumerate(self.nodes):
            if node.name:
                table.setdefault(node.name, []).append(node_index)
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
