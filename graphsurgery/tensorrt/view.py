"""View: every node of a model, those of subgraphs and local functions included, with what is known of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache, cached_property
from typing import Any

import onnx

from ..feature_map import Array, Dimension
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..graph.shapes import inferred, tensor_type
from ..modelfile import payload
from ..modelfile.model import ModelFile
from ..modelfile.operators import STANDARD
from ..modelfile.subgraphs import reads
from .calls import Given, bound, calls, in_words, key_of

_SHAPE_OF = frozenset({"Shape", "Size"})


class Origin(IntEnum):
    """What a tensor depends on."""

    CONSTANT = 0
    SHAPE = 1
    """shapes of the model's inputs: TensorRT computes it on the host"""
    DATA = 2


@dataclass
class Scope:
    """The tensors that the nodes of one graph can see, by name."""

    types: dict[str, tuple[int, tuple[Dimension, ...] | None]] = field(default_factory=dict)
    values: dict[str, onnx.TensorProto] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def inner(self) -> Scope:
        """The scope of a subgraph, to add its own tensors to."""
        return Scope(dict(self.types), dict(self.values), dict(self.origins))


@dataclass(frozen=True)
class Visit:
    """One node."""

    node: onnx.NodeProto
    scope: Scope
    label: str
    position: int | None
    within: str | None
    path: str | None
    insertion: str | None
    view: View

    @property
    def operator(self) -> str:
        return str(self.node.op_type)

    @property
    def imported(self) -> bool:
        """Whether TensorRT reads it as an operator of the standard set: by the name alone, whatever the domain, and
        before it looks for a function or a plugin of that name.
        """
        return self.is_onnx or (self.node.domain in STANDARD and self.function is None)

    @property
    def is_onnx(self) -> bool:
        """Whether ONNX has an operator of its name."""
        return _schema(self.node.op_type) is not None

    @property
    def function(self) -> onnx.FunctionProto | None:
        """The function of the model that it calls; None: it calls none."""
        return self.view.functions.get(key_of(self.node))

    @property
    def place(self) -> dict[str, Any]:
        """Where the node is, as the fields of a Finding."""
        own = ("operator", "position", "within", "path", "insertion")
        return {"node": self.label} | {name: getattr(self, name) for name in own}

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, text as str; ``default`` where the node does not state it, or as one of another type
        than its operator has.
        """
        kind = _attribute_types(self.node.op_type).get(name) if self.imported else None
        named = (a for a in self.node.attribute if a.name == name and kind in (None, a.type))
        stated = map(payload.attribute_value, named)
        value = next((each for each in stated if each is not None), default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def input(self, slot: int) -> str:
        """Name of an input; "" where it is left out."""
        return self.node.input[slot] if slot < len(self.node.input) else ""

    def outputs(self) -> list[str]:
        """Names of the outputs that are not left out."""
        return [name for name in self.node.output if name]

    @property
    def output(self) -> str:
        """Name of the first output; "" where there is none."""
        return self.node.output[0] if self.node.output else ""

    def type(self, tensor: str) -> int:
        """Element type number of a tensor that the node can see; 0 where it is not known."""
        return self.scope.types.get(tensor, (0, None))[0]

    def shape(self, tensor: str) -> tuple[Dimension, ...] | None:
        """Shape of a tensor that the node can see; None where not even the rank is known."""
        return self.scope.types.get(tensor, (0, None))[1]

    def rank(self, slot: int = 0) -> int | None:
        """Rank of an input, where it is known."""
        shape = self.shape(self.input(slot))
        return None if shape is None else len(shape)

    def origin(self, tensor: str) -> Origin:
        """What a tensor depends on. Inputs of a local function count as data."""
        return self.scope.origins.get(tensor, Origin.DATA if tensor else Origin.CONSTANT)

    @cached_property
    def own_origin(self) -> Origin:
        """What the node's outputs depend on."""
        return max((self.origin(name) for name in self.outputs()), default=Origin.DATA)

    def value(self, slot: int) -> Array | None:
        """Value of a constant input; None if it is not constant, or not among the values that are at hand.

        Values over 1 kB are read for initializers of the main graph only.
        """
        name = self.input(slot)
        tensor = self.scope.values.get(name)
        if tensor is None:
            return None
        try:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                return payload.array(tensor)
        except Exception:  # a payload that the structure leaves out
            pass
        try:
            return self.view.model.tensor(name)
        except Exception:  # a tensor of a subgraph, or external data that is not there
            return None


class View:
    """A model, node by node."""

    def __init__(self, model: ModelFile) -> None:
        self.model = model
        self.structure = model.structure
        self.index = GraphIndex(model)
        self.functions = {(f.domain, f.name, f.overload): f for f in self.structure.functions}
        self._copy = inferred(self.structure)

    @cached_property
    def visits(self) -> Sequence[Visit]:
        """Every node: those of the main graph in its order, each followed by those of its subgraphs, then those of
        functions, as often as the attributes differ that a function is called with: not at all where nothing calls it.
        """
        called = calls(self.structure.graph, self.functions)
        return [
            *self._main(),
            *(v for key, given in called.items() for v in self._function(self.functions[key], given)),
        ]

    def _main(self) -> Iterator[Visit]:
        tree = ModuleTree(self.index)
        insertions = self._inserted(None)
        scope = Scope()
        _add(scope, self.structure.graph, self._copy.graph if self._copy else None)
        for position, node in enumerate(self.index.nodes):
            path = tree.of_node[position]
            display = tree.modules[path].display if path in tree.modules else path
            label, insertion = self.index.label(position), insertions.get(node.name)
            visit = Visit(node, scope, label, position, None, display or None, insertion, self)
            yield visit
            yield from self._subgraphs(visit, self._copy.graph.node[position] if self._copy else None)

    def _inserted(self, function: tuple[str, ...] | None) -> dict[str, str]:
        """Name of a node -> the insertion that it is of, in the main graph or in a function."""
        every = (each for each in self.model.insertions() if each.function == function)
        return {name: each.id for each in every for name in each.nodes}

    def _subgraphs(self, outer: Visit, copied: onnx.NodeProto | None) -> Iterator[Visit]:
        """``copied`` is the node where shapes have been inferred."""
        for number, attribute in enumerate(outer.node.attribute):
            twin = copied.attribute[number] if copied else None
            pairs = [(attribute.g, twin.g if twin else None)] if attribute.HasField("g") else []
            pairs += [(graph, twin.graphs[i] if twin else None) for i, graph in enumerate(attribute.graphs)]
            for graph, graph_copy in pairs:
                scope = outer.scope.inner()
                _add(scope, graph, graph_copy)
                within = f"{attribute.name} of {outer.label}" + (f", in {outer.within}" if outer.within else "")
                for i, node in enumerate(graph.node):
                    visit = replace(outer, node=node, scope=scope, label=_label(node, i), within=within)
                    yield visit
                    yield from self._subgraphs(visit, graph_copy.node[i] if graph_copy else None)

    def _function(self, function: onnx.FunctionProto, different: Sequence[Given]) -> Iterator[Visit]:
        name = f"the function {function.domain}.{function.name}".replace(" .", " ")
        for given in different:
            within = name if len(different) == 1 else f"{name}, {in_words(given)}"
            nodes, scope = [bound(node, given) for node in function.node], Scope()
            scope.origins.update(dict.fromkeys(function.input, Origin.DATA))
            _propagate(scope, nodes)
            scope.values.update(_constants(nodes))
            insertions = self._inserted((function.domain, function.name, function.overload))
            for i, node in enumerate(nodes):
                visit = Visit(node, scope, _label(node, i), None, within, None, insertions.get(node.name), self)
                yield visit
                yield from self._subgraphs(visit, None)


@cache
def _attribute_types(operator: str) -> dict[str, int]:
    """The types of the attributes of a standard operator, as its newest version has them."""
    schema = _schema(operator)
    declared = schema.attributes.items() if schema else ()
    return {name: int(each.type.value) for name, each in declared}  # type: ignore[attr-defined]


@cache
def _schema(operator: str) -> onnx.defs.OpSchema | None:
    """The newest version of a standard operator; None if there is none of this name."""
    return onnx.defs.get_schema(operator) if onnx.defs.has(operator) else None


def _label(node: onnx.NodeProto, node_index: int) -> str:
    return node.name or f"{node.op_type}#{node_index}"


def _constants(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, onnx.TensorProto]]:
    """The outputs of Constant nodes that hold numbers, and these as tensors."""
    for node in nodes:
        if node.op_type == "Constant" and (value := payload.of_constant(node)) is not None:
            yield node.output[0], value


def _add(scope: Scope, graph: onnx.GraphProto, copied: onnx.GraphProto | None) -> None:
    """Add a graph's own tensors to the scope that its nodes see; ``copied`` is the graph with its shapes inferred."""
    for each in (copied, graph):  # what the model states, over what was inferred
        if each is None:
            continue
        for value in (*each.value_info, *each.input, *each.output):
            kind, shape = tensor_type(value.type)
            known = scope.types.get(value.name, (0, None)) if each is graph else (0, None)
            scope.types[value.name] = (known[0] or kind, known[1] if known[1] is not None else shape)
    initializers = [*(copied.initializer if copied else ()), *graph.initializer]
    for name, tensor in (*((each.name, each) for each in initializers), *_constants(graph.node)):
        scope.types[name] = (tensor.data_type, tuple(tensor.dims))
        scope.values[name] = tensor
    constants = {tensor.name for tensor in initializers}
    scope.origins.update(dict.fromkeys(constants, Origin.CONSTANT))
    scope.origins.update({v.name: Origin.DATA for v in graph.input if v.name not in constants})
    _propagate(scope, graph.node)


def _propagate(scope: Scope, nodes: Sequence[onnx.NodeProto]) -> None:
    """Work out what each node's outputs depend on. Repeated until nothing changes: some files are not in order."""
    origins, changed = scope.origins, True
    produced = {name for node in nodes for name in node.output if name}
    origins.update(dict.fromkeys(produced, Origin.CONSTANT))
    read = [reads(node) for node in nodes]
    while changed:
        changed = False
        for node, names in zip(nodes, read, strict=True):
            depends = max((origins.get(name, Origin.DATA) for name in names), default=Origin.CONSTANT)
            if node.op_type in _SHAPE_OF and node.domain in STANDARD:
                depends = min(depends, Origin.SHAPE)
            for name in node.output:
                if name and origins[name] < depends:
                    origins[name], changed = depends, True
