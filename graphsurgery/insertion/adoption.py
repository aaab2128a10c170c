"""Adopt blocks whose records are lost: prove that they are what a recipe inserts, where it does, and record them again.

The blocks are taken out, the recipe is carried out on what is left, and the result has to be the graph that there is:
the same nodes, attributes and connections. Constants may have other names, since optimisers merge equal ones, and
weights may have other values, since they may have been trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx

from ..errors import InsertionError
from ..graph.index import GraphIndex
from ..messages import listed
from ..modelfile.fields import Edit
from ..modelfile.function_body import bodies, graph_of
from ..modelfile.model import ModelFile
from ..modelfile.operators import STANDARD
from ..modelfile.record import EDITION, Insertion
from .ownership import scope_of
from .removal import remove, same_bytes, without
from .splice import AppliedInsertion
from .unrecorded import Unrecorded, everywhere

Planner: TypeAlias = Callable[[ModelFile, int], tuple[ModelFile, list[AppliedInsertion]]]
"""carries a recipe out on a model, in the forms of an edition (see modelfile/record.py)"""


def adopt(model: ModelFile, blocks: Iterable[str], planner: Planner) -> tuple[ModelFile, list[Insertion]]:
    """Record insertions again whose records are lost.

    Parameters
    ----------
    model:
        The model as it is now.
    blocks:
        The names of the recipe's blocks: ``simam``, ``se``.
    planner:
        Carries out the recipe; in the forms of earlier editions where the model does not have those of this one.

    Returns
    -------
    tuple[ModelFile, list[Insertion]]
        The model with the records in its metadata, and the records.

    Raises
    ------
    InsertionError
        If the graph is not what the recipe makes of the model without the blocks, or they cannot be taken out of it.
    """
    blocks = list(dict.fromkeys(blocks))
    candidates = {each.scope: each for each in everywhere(model, blocks)}
    if not candidates:
        raise InsertionError(
            f"{model.name} has no nodes that are named as those of an inserted {' or '.join(blocks)} are and have no "
            "record, so there is nothing to adopt"
        )
    differs: InsertionError | None = None
    for edition in range(EDITION, 0, -1):
        try:
            return _adopted(model, candidates, planner, edition)
        except InsertionError as error:
            differs = differs or error
    assert differs is not None
    raise differs


def _adopted(
    model: ModelFile, candidates: Mapping[str, Unrecorded], planner: Planner, edition: int
) -> tuple[ModelFile, list[Insertion]]:
    """The same for these candidates, in the forms of one edition."""
    bare, made, applied = _again(model, candidates.values(), planner, edition)
    planned = {scope_of(each.insertion.nodes): each.insertion.id for each in applied}
    if set(planned) < set(candidates):  # others are named so, and are not of this recipe
        candidates = {scope: each for scope, each in candidates.items() if scope in planned}
        bare, made, applied = _again(model, candidates.values(), planner, edition)
        planned = {scope_of(each.insertion.nodes): each.insertion.id for each in applied}
    if missing := [id for scope, id in planned.items() if scope not in candidates]:
        there = listed([each.id for each in candidates.values()]) or "none that it would insert"
        raise InsertionError(
            f"the recipe inserts {listed(missing)}, and {model.name} has no such block without a record; it has {there}"
        )
    order = [each.insertion.id for each in applied]
    found = (record for graph in (model, *bodies(model)) for record in _compared(graph, made, applied))
    records = sorted(found, key=lambda record: order.index(record.id))
    adopted = model.edited(Edit(metadata=dict(record.to_entry() for record in records)))
    if not same_bytes(remove(adopted, [record.id for record in records]), bare):
        raise InsertionError(f"the blocks of {model.name} cannot be taken out again once they are recorded")
    return adopted, records


def _again(
    model: ModelFile, candidates: Iterable[Unrecorded], planner: Planner, edition: int
) -> tuple[ModelFile, ModelFile, list[AppliedInsertion]]:
    """The model without the candidates, and what the recipe makes of it."""
    records = [each.as_record() for each in candidates]
    bare = without(model, records, [*model.insertions(), *records])
    made, applied = planner(bare, edition)
    return bare, made, applied


def _compared(graph: ModelFile, made: ModelFile, applied: Iterable[AppliedInsertion]) -> list[Insertion]:
    """The records of the insertions in one graph of a model, against what the recipe makes of it."""
    index, expected = GraphIndex(graph), GraphIndex(graph_of(made, graph.function))
    own = [each.insertion for each in applied if each.insertion.function == graph.function]
    return _Comparison(index, expected, own).records()


class _Comparison:
    """A graph as it is, against the graph that the recipe makes."""

    def __init__(self, index: GraphIndex, expected: GraphIndex, insertions: Sequence[Insertion]) -> None:
        self._index = index
        self._expected = expected
        self._insertions = insertions
        self._owner = {name: each for each in insertions for name in each.nodes}
        self._weights = {name for each in insertions for name in _weights(each)}
        self._constants: dict[str, str] = {}
        """name of a constant in the expected graph -> its name in this one"""

    def records(self) -> list[Insertion]:
        """The records of the insertions, for this graph. InsertionError where the graphs differ."""
        index, expected = self._index, self._expected
        matched = set[int]()
        for n, node in enumerate(expected.nodes):
            here = self._counterpart(node)
            insertion = self._owner.get(node.name)
            if here is None and insertion is not None and node.op_type == "Constant":
                continue  # an initializer by now: those that read it tell
            if here is None:
                raise self._differs(insertion, f"there is no node that gives {_first(node.output)!r}")
            matched.add(here)
            if insertion is None:
                if index.nodes[here] != node:
                    raise self._differs(None, f"the node {expected.label(n)!r} reads or gives something else")
            else:
                self._match(insertion, node, index.nodes[here])
        if more := sorted(set(range(len(index.nodes))) - matched):
            raise self._differs(None, f"it would not have the node {index.label(more[0])!r}")
        return [self._record(insertion) for insertion in self._insertions]

    def _counterpart(self, node: onnx.NodeProto) -> int | None:
        """The node of this graph that gives the same tensor, or that has the same name where it gives none."""
        output = _first(node.output)
        if output:
            return self._index.producer.get(output)
        named = self._index.node_names.get(node.name, [])
        return named[0] if len(named) == 1 else None

    def _match(self, insertion: Insertion, node: onnx.NodeProto, here: onnx.NodeProto) -> None:
        """InsertionError unless a node is the one of a block that is expected."""
        if node.name != here.name:
            raise self._differs(insertion, f"the node that gives {_first(node.output)!r} is not called {node.name!r}")
        if _kind(node) != _kind(here) or list(node.output) != list(here.output):
            raise self._differs(insertion, f"{node.name!r} is not the {node.op_type} that it would be")
        if node.op_type == "Constant":
            self._match_constants(insertion, node.output[0], here.output[0])
            return
        if wrong := next(_differing(node, here, self._index.model.opset), None):
            raise self._differs(insertion, f"{node.name!r} has another {wrong!r}")
        wanted, given = _inputs(node), _inputs(here)
        if len(wanted) != len(given):
            raise self._differs(insertion, f"{node.name!r} reads {len(given)} tensors and not {len(wanted)}")
        for name, other in zip(wanted, given, strict=True):
            if name and self._expected.is_constant(name) and other and self._index.is_constant(other):
                self._match_constants(insertion, name, other)
            elif name != other:
                raise self._differs(insertion, f"{node.name!r} reads {other!r} and not {name!r}")

    def _match_constants(self, insertion: Insertion, name: str, other: str) -> None:
        """Let one constant stand for another. InsertionError where it cannot."""
        if self._constants.setdefault(name, other) != other:
            raise self._differs(insertion, f"it reads {other!r} and {self._constants[name]!r} where it would read one")
        wanted, given = self._expected.model.tensor(name), self._index.model.tensor(other)
        if wanted.shape != given.shape or wanted.dtype != given.dtype:
            said = f"{list(given.shape)} {given.dtype} and not {list(wanted.shape)} {wanted.dtype}"
            raise self._differs(insertion, f"the constant {other!r} is {said}")
        if name not in self._weights and not np.array_equal(wanted, given):
            raise self._differs(insertion, f"the constant {other!r} has another value")

    def _record(self, insertion: Insertion) -> Insertion:
        index = self._index
        nodes = tuple(name for name in insertion.nodes if name in index.node_names)
        renamed = insertion.with_constants(self._constants)
        initializers = tuple(name for name in renamed.initializers if name in index.initializers)
        return replace(renamed, nodes=nodes, initializers=initializers)

    def _differs(self, insertion: Insertion | None, why: str) -> InsertionError:
        what = insertion.id if insertion else "the model around the blocks"
        return InsertionError(f"{what} is not as the recipe makes it, so nothing is adopted: {why}")


def _weights(insertion: Insertion) -> Iterator[str]:
    """The constants that hold a block's parameters."""
    for entry in insertion.stored.values():
        for part in (entry, *entry.get("parts", ())):
            if "initializer" in part:
                yield part["initializer"]


def _kind(node: onnx.NodeProto) -> tuple[str, str]:
    return ("" if node.domain in STANDARD else node.domain), node.op_type


def _first(names: Iterable[str]) -> str:
    return next(filter(None, names), "")


def _inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs without blank ones at the end."""
    names = list(node.input)
    while names and not names[-1]:
        names.pop()
    return names


def _differing(node: onnx.NodeProto, other: onnx.NodeProto, opset: int) -> Iterator[str]:
    """The attributes in which two nodes of one operator differ; one that is not given has its default."""
    defaults = _defaults(node, opset)
    first, second = ({a.name: _value(a) for a in each.attribute} for each in (node, other))
    for name in sorted(first.keys() | second.keys()):
        if first.get(name, defaults.get(name)) != second.get(name, defaults.get(name)):
            yield name


def _defaults(node: onnx.NodeProto, opset: int) -> dict[str, bytes]:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "" if node.domain in STANDARD else node.domain)
    except onnx.defs.SchemaError:
        return {}
    return {name: _value(each.default_value) for name, each in schema.attributes.items() if each.default_value.type}


def _value(attribute: onnx.AttributeProto) -> bytes:
    """An attribute for comparison: without what says nothing."""
    bare = onnx.AttributeProto()
    bare.CopyFrom(attribute)
    bare.name = bare.doc_string = ""
    return bytes(bare.SerializeToString(deterministic=True))
