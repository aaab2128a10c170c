"""What of a graph belongs to an insertion: its nodes, the tensors it stands between, constants that nothing else needs.

A record is a claim, the graph is the fact. Nodes are an insertion's if the record names them and their names are such
as the insertion gives; a constant goes with them only if nothing else reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import InsertionError
from ..graph import module_paths
from ..graph.index import GraphIndex
from ..graph.shapes import ShapeTable
from ..messages import listed
from ..modelfile.record import Insertion
from ..modelfile.subgraphs import reads


@dataclass(frozen=True)
class Owned:
    """An inserted block as it stands in the graph."""

    nodes: frozenset[int]
    """indexes of its nodes"""
    source: str
    """the tensor that it reads"""
    output: str
    """the tensor that it gives"""


class Ownership:
    """Finds the insertions of a model in its graph."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._sparse = {each.values.name for each in index.model.structure.graph.sparse_initializer}
        self._in_scope: dict[str, set[int]] = {}
        for name, node_indexes in index.node_names.items():
            self._in_scope.setdefault(name.rpartition("/")[0], set()).update(node_indexes)

    def find(self, insertion: Insertion) -> Owned:
        """The block of a record. InsertionError, with the reason, where it is no block of its own any more."""
        nodes = self._nodes(insertion)
        sources, outputs = self.boundary(nodes)
        if len(sources) != 1:
            raise _joined(insertion, f"it reads {_quoted(sources)} where a block reads one tensor")
        if len(outputs) != 1:
            raise _joined(insertion, f"it gives {_quoted(outputs)} where a block gives one tensor")
        return Owned(nodes, sources[0], outputs[0])

    def boundary(self, nodes: frozenset[int]) -> tuple[list[str], list[str]]:
        """The tensors, constants apart, that enter some nodes, and those that leave them."""
        index = self._index
        produced = {name for node_index in nodes for name in index.nodes[node_index].output if name}
        read = {name for node_index in nodes for name in index.reads(node_index)}
        sources = sorted(name for name in read - produced if not self._is_constant(name))
        variable = sorted(name for name in produced if not self._is_constant(name))
        outputs = [name for name in variable if name in index.outputs or self._leaves(nodes, name)]
        if not outputs:  # a block that nothing reads: its last tensor
            outputs = [name for name in variable if name not in index.consumers]
        return sources, outputs

    def scopes(self) -> Iterator[tuple[str, frozenset[int]]]:
        """The scopes in the names of nodes, with the nodes right in them."""
        return ((scope, frozenset(nodes)) for scope, nodes in self._in_scope.items())

    def _nodes(self, insertion: Insertion) -> frozenset[int]:
        """The nodes that the record names, and that are a block's."""
        found = {name: self._index.node_names.get(name, []) for name in insertion.nodes}
        if wrong := [name for name, node_indexes in found.items() if len(node_indexes) != 1]:
            said = "is there several times" if found[wrong[0]] else "is not there"
            raise _changed(insertion, f"{wrong[0]!r} {said}")
        nodes = frozenset(node_indexes[0] for node_indexes in found.values())
        # constants come from other blocks, too, where an optimiser made several read one
        own = [name for name, (n,) in found.items() if self._index.nodes[n].op_type != "Constant"]
        scope = scope_of(own)
        if not own:
            raise _changed(insertion, "its record names no nodes")
        if module_paths.join(scope.split("/")) != insertion.id:
            raise _changed(insertion, f"{listed(own, 4)} are not named as the nodes of {insertion.id} are")
        if more := self._in_scope[scope] - nodes:
            raise _changed(insertion, f"its record does not have {self._index.label(min(more))!r}")
        return nodes

    def _is_constant(self, tensor: str) -> bool:
        return tensor in self._sparse or self._index.is_constant(tensor)

    def _leaves(self, nodes: frozenset[int], tensor: str) -> bool:
        return not nodes.issuperset(self._index.consumers.get(tensor, ()))


def scope_of(names: Iterable[str]) -> str:
    """The scope that all these names of nodes are in: ``/model.8/simam``; "" where they are in several.

    >>> scope_of(["/model.8/simam/Mul", "/model.8/simam/Mul_1"])
    '/model.8/simam'
    """
    scopes = {name.rpartition("/")[0] for name in names}
    return scopes.pop() if len(scopes) == 1 else ""


def needed(index: GraphIndex, removed: frozenset[int]) -> set[str]:
    """The tensors that are needed once some nodes are gone: by other nodes and their subgraphs, as inputs and outputs
    of the model, by quantisation annotations, and for training.
    """
    structure = index.model.structure
    names = {name for name, readers in index.consumers.items() if not removed.issuperset(readers)}
    names |= index.inputs.keys() | index.outputs.keys()
    for annotation in structure.graph.quantization_annotation:
        names.add(annotation.tensor_name)
        names.update(entry.value for entry in annotation.quant_parameter_tensor_names)
    for training in structure.training_info:
        for bindings in (training.initialization_binding, training.update_binding):
            names.update(text for entry in bindings for text in (entry.key, entry.value))
        for graph in (training.initialization, training.algorithm):
            names.update(name for node in graph.node for name in reads(node))
    return names


def check_types(shapes: ShapeTable, insertion: Insertion, source: str, output: str) -> None:
    """InsertionError where what reads the output of a block would get another type or shape from its source."""
    (kind, dimensions), (other, sizes) = shapes.lookup(source), shapes.lookup(output)
    same = not (kind and other) or kind == other
    if dimensions is not None and sizes is not None:
        known = [(a, b) for a, b in zip(dimensions, sizes, strict=False) if isinstance(a, int) and isinstance(b, int)]
        same = same and len(dimensions) == len(sizes) and all(a == b for a, b in known)
    if not same:
        raise _joined(insertion, f"{output!r} has another type or shape than {source!r}, which would take its place")


def _changed(insertion: Insertion, why: str) -> InsertionError:
    return _refused(insertion, f"another tool has changed its nodes since it was inserted: {why}")


def _joined(insertion: Insertion, why: str) -> InsertionError:
    return _refused(insertion, f"another tool has joined it with the graph around it: {why}")


def _refused(insertion: Insertion, why: str) -> InsertionError:
    return InsertionError(f"{insertion.id} cannot be taken out: {why}; go back to the file from before")


def _quoted(names: Iterable[str]) -> str:
    return listed([repr(name) for name in names], 4) or "nothing"
