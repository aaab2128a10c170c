"""GraphIndex: the producer and the consumers of every tensor, and the names that are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from sys import intern
from typing import TypeVar

import onnx

from ..modelfile.model import ModelFile
from ..modelfile.operators import operator
from ..modelfile.record import Insertion
from ..modelfile.subgraphs import captures, subgraphs

GIVES_SIZES = frozenset({"Shape", "Size"})
"""operators whose result depends on the shape of what they read alone"""
_Item = TypeVar("_Item")


class GraphIndex:
    """The main graph of a model, indexed by tensor. A node is named by its index in the file."""

    def __init__(self, model: ModelFile) -> None:
        self.model = model
        graph = model.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        # a name is one object wherever it occurs: it is kept once, and dictionaries find it sooner; a slice of a field
        # is a list at once, where the field itself gives one name after the other
        self._nested = {node_index: held for node_index, node in enumerate(self.nodes) if (held := subgraphs(node))}
        """index of a node with subgraphs -> these"""
        inner = ((node_index, captures(self.nodes[node_index])) for node_index in self._nested)
        self.captured = {node_index: frozenset(map(intern, names)) for node_index, names in inner if names}
        """index of a node with subgraphs -> the tensors that these take from outside"""
        self.inputs_of = [tuple(map(intern, node.input[:])) for node in self.nodes]
        """of each node, all its inputs in order; "" for one that is left out"""
        self._reads = [frozenset(filter(None, names)) for names in self.inputs_of]
        for node_index, captured in self.captured.items():
            self._reads[node_index] |= captured
        self.named_outputs = [[intern(name) for name in node.output[:] if name] for node in self.nodes]
        """of each node, those of its outputs that have a name"""
        self.producer = {name: node_index for node_index, names in enumerate(self.named_outputs) for name in names}
        """tensor -> index of the node that produces it"""
        self.consumers: dict[str, list[int]] = {}
        """tensor -> indexes of the nodes that read it, those whose subgraphs do so included, each once, in order"""
        self.inputs: dict[str, onnx.ValueInfoProto] = {value.name: value for value in graph.input}
        self.outputs: dict[str, onnx.ValueInfoProto] = {value.name: value for value in graph.output}
        self.initializers: dict[str, int] = {tensor.name: i for i, tensor in enumerate(graph.initializer)}
        for node_index, reads in enumerate(self._reads):
            for name in reads:
                self.consumers.setdefault(name, []).append(node_index)

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor is an initializer or the output of a Constant node."""
        node = self.producing(tensor)
        return tensor in self.initializers or (node is not None and operator(node) == "Constant")

    def is_activation(self, tensor: str) -> bool:
        """Whether a tensor depends on an input of the model, not on constants alone."""
        node_index = self.producer.get(tensor)
        return tensor in self.free_inputs if node_index is None else node_index in self.active

    def producing(self, tensor: str) -> onnx.NodeProto | None:
        """The node that produces a tensor."""
        node_index = self.producer.get(tensor)
        return self.nodes[node_index] if node_index is not None else None

    def ancestors(self, tensor: str) -> list[int]:
        """Indexes of the nodes that a tensor depends on, each after those that it depends on itself."""
        return list(upstream([tensor], self.producer, lambda node_index: sorted(self.reads(node_index))))

    def downstream(self, tensors: Iterable[str]) -> list[int]:
        """Indexes of the nodes that read tensors, of each in order."""
        return [node_index for tensor in tensors for node_index in self.consumers.get(tensor, ())]

    @cached_property
    def operators(self) -> list[str]:
        """What :func:`operator` says of each node."""
        return [intern(operator(node)) for node in self.nodes]

    @cached_property
    def first_sizes(self) -> dict[str, int]:
        """initializer -> the size of its first axis; those of rank 0 are left out"""
        return {each.name: each.dims[0] for each in self.model.structure.graph.initializer if each.dims}

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
        return reached(
            self.downstream(self.free_inputs), lambda node_index: self.downstream(self.named_outputs[node_index])
        )

    @cached_property
    def sizes(self) -> set[str]:
        """The tensors that depend on the inputs of the model by shapes alone."""
        found = set[str]()
        for node_index in upstream([*self.producer], self.producer, self.reads):
            read = [name for name in self._reads[node_index] if self.is_activation(name)]
            if read and (self.operators[node_index] in GIVES_SIZES or found.issuperset(read)):
                found.update(self.named_outputs[node_index])
        return found

    @cached_property
    def free_inputs(self) -> list[str]:
        """The inputs that whoever runs the model gives it: those that are no initializers."""
        return [name for name in self.inputs if name not in self.initializers]

    @cached_property
    def insertions(self) -> list[Insertion]:
        """What is inserted in the graph already."""
        return [each for each in self.model.insertions() if each.function == self.model.function]

    @cached_property
    def insertion_of(self) -> dict[int, Insertion]:
        """Index of a node of an inserted block -> the insertion."""
        pairs = ((name, insertion) for insertion in self.insertions for name in insertion.nodes)
        return {node_index: insertion for name, insertion in pairs for node_index in self.node_names.get(name, ())}

    @cached_property
    def insertions_at(self) -> dict[str, list[Insertion]]:
        """tensor -> the insertions whose blocks read it"""
        table: dict[str, list[Insertion]] = {}
        for insertion in self.insertions:
            table.setdefault(insertion.site.tensor, []).append(insertion)
        return table

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
        """Every name in the model, of nodes and of tensors, subgraphs and functions included, and every one in what
        blocks have replaced.
        """
        whole = self.model.whole
        main = self if whole is self.model else GraphIndex(whole)
        replaced = (each.replaced.graph() for each in whole.insertions() if each.replaced)
        held = (graph for graphs in main._nested.values() for graph in graphs)
        graph, names = whole.structure.graph, {*_names_in([*held, *whole.structure.functions, *replaced])}
        names.update(main.inputs, main.outputs, main.initializers, main.producer, main.consumers, main.node_names)
        names.update(value.name for value in graph.value_info)
        names.update(sparse.values.name for sparse in graph.sparse_initializer)
        return names


def reached(start: Iterable[_Item], further: Callable[[_Item], Iterable[_Item]]) -> set[_Item]:
    """Some items, and all that lead from one to the next."""
    found, pending = set[_Item](), list(start)
    while pending:
        item = pending.pop()
        if item not in found:
            found.add(item)
            pending += further(item)
    return found


def upstream(
    tensors: Iterable[str], producer: Mapping[str, int], reads: Callable[[int], Iterable[str]]
) -> Iterator[int]:
    """Indexes of the nodes that tensors depend on, each after those that it depends on itself."""
    found, entered, pending = set[int](), set[int](), list(tensors)
    while pending:
        node_index = producer.get(pending[-1])
        if node_index is None or node_index in found:
            pending.pop()
        elif node_index in entered:  # all that it reads has been seen to
            found.add(node_index)
            yield node_index
        else:
            entered.add(node_index)
            pending += reads(node_index)


def _names_in(graphs: Iterable[onnx.GraphProto | onnx.FunctionProto]) -> Iterator[str]:
    pending = list(graphs)
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
