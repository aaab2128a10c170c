"""A model without a name in it: what recognition by structure has left to go by."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto


class Renamed(NamedTuple):
    """A model and what its tensors are called now: old name -> new name, those of its subgraphs included."""

    model: ModelProto
    tensors: dict[str, str]


class _Names:
    """Draws names that tell nothing, the same one for the same old one."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._drawn: set[str] = set()
        self.tensors: dict[str, str] = {}

    def fresh(self) -> str:
        while (name := f"x{self._rng.randrange(16**10):010x}") in self._drawn:
            pass
        self._drawn.add(name)
        return name

    def of(self, name: str, table: dict[str, str]) -> str:
        """The new name of a tensor; an input that is left out ("") stays so."""
        if name and name not in table:
            table[name] = self.fresh()
        return table.get(name, "")


def randomise(model: ModelProto, seed: int = 0) -> Renamed:
    """Return a copy with a random name for every node, tensor, symbolic size, graph and local function.

    Metadata, documentation and the producer are dropped everywhere. Operators of other domains that are not local
    functions, such as com.microsoft, keep their names: they say what is computed.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    names = _Names(seed)
    sizes: dict[str, str] = {}
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props"):
        copy.ClearField(field)
    _functions(copy, names)
    for graph in _graphs(copy.graph):
        _graph(graph, names, names.tensors, sizes)
    for function in copy.functions:
        _function(function, names, sizes)
    return Renamed(copy, names.tensors)


def _graph(graph: GraphProto, names: _Names, table: dict[str, str], sizes: dict[str, str]) -> None:
    """Rename what stands in one graph; not what stands in its subgraphs."""
    graph.name = names.fresh()
    for field in ("doc_string", "metadata_props"):
        graph.ClearField(field)
    sparse = [tensor.values for tensor in graph.sparse_initializer]
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *sparse):
        entry.name = names.of(entry.name, table)
        entry.ClearField("doc_string")
        entry.ClearField("metadata_props")
    for value in (*graph.input, *graph.output, *graph.value_info):
        _type(value.type, names, sizes)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.of(annotation.tensor_name, table)
        for pair in annotation.quant_parameter_tensor_names:
            pair.value = names.of(pair.value, table)
    _nodes(graph.node, names, table)


def _function(function: FunctionProto, names: _Names, sizes: dict[str, str]) -> None:
    """Rename inside a function, whose names are its own."""
    table: dict[str, str] = {}
    for field in ("doc_string", "metadata_props"):
        function.ClearField(field)
    for values in (function.input, function.output):
        values[:] = [names.of(name, table) for name in values]
    for value in function.value_info:
        value.name = names.of(value.name, table)
        _type(value.type, names, sizes)
    _nodes(function.node, names, table)
    for node in function.node:
        for graph in (inner for held in _held(node) for inner in _graphs(held)):
            _graph(graph, names, table, sizes)


def _functions(model: ModelProto, names: _Names) -> None:
    """Rename the local functions, their calls and their domains."""
    calls = {(f.domain, f.name, f.overload): (names.fresh(), names.fresh(), "") for f in model.functions}
    bodies = [graph.node for graph in _graphs(model.graph)]
    for function in model.functions:
        bodies += [function.node, *(g.node for node in function.node for held in _held(node) for g in _graphs(held))]
    for node in (node for body in bodies for node in body):
        call = calls.get((node.domain, node.op_type, node.overload))
        if call:
            node.domain, node.op_type, node.overload = call
    used = {function.domain for function in model.functions}
    for function in model.functions:
        function.domain, function.name, function.overload = calls[function.domain, function.name, function.overload]
    for holder in (model, *model.functions):
        kept = [entry for entry in holder.opset_import if entry.domain not in used]
        del holder.opset_import[:]
        holder.opset_import.extend(kept)
        for domain, _, _ in calls.values():
            holder.opset_import.add(domain=domain, version=1)


def _nodes(nodes: Iterable[NodeProto], names: _Names, table: dict[str, str]) -> None:
    for node in nodes:
        node.name = names.fresh()
        node.input[:] = [names.of(name, table) for name in node.input]
        node.output[:] = [names.of(name, table) for name in node.output]
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.HasField("t"):
                attribute.t.ClearField("name")
                attribute.t.ClearField("doc_string")


def _type(kind: TypeProto, names: _Names, sizes: dict[str, str]) -> None:
    """Rename the symbolic sizes of a tensor type."""
    for dimension in kind.tensor_type.shape.dim if kind.HasField("tensor_type") else ():
        if dimension.dim_param:
            dimension.dim_param = names.of(dimension.dim_param, sizes)


def _held(node: NodeProto) -> list[GraphProto]:
    return [
        graph
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for held in _held(node):
            yield from _graphs(held)
