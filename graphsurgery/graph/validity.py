"""Soundness: what is wrong with a graph itself, so that no runtime could run it whatever is inserted."""

from __future__ import annotations

from ..errors import ModelError
from .index import GraphIndex


def check(index: GraphIndex) -> None:
    """Raise ModelError with the fault of a graph that nothing can run."""
    found = fault(index)
    if found is not None:
        raise ModelError(found)


def fault(index: GraphIndex) -> str | None:
    """What is wrong with the main graph, in one sentence: a cycle, a tensor that is made twice or by nobody."""
    if is_in_order(index):
        return None
    said = _made_twice(index) or _made_by_nobody(index) or _cycle(index)
    return f"{index.model.name} is no valid model, and no runtime can run it: {said}" if said else None


def is_in_order(index: GraphIndex) -> bool:
    """Whether every tensor is produced once and read after that, as the ONNX standard demands."""
    known = {*index.inputs, *index.initializers, ""}
    for position, node in enumerate(index.nodes):
        made = [name for name in node.output if name]
        if not known.issuperset(index.reads(position)) or not known.isdisjoint(made) or len(set(made)) < len(made):
            return False
        known.update(made)
    return known.issuperset(index.outputs)


def _made_twice(index: GraphIndex) -> str | None:
    maker = {name: "an input of the model" for name in index.inputs if name not in index.initializers}
    maker |= dict.fromkeys(index.initializers, "an initializer")
    for position, node in enumerate(index.nodes):
        for name in filter(None, node.output):
            if name in maker:
                return f"the tensor {name!r} is made twice, by {maker[name]} and by the node {index.label(position)!r}"
            maker[name] = f"the node {index.label(position)!r}"
    return None


def _made_by_nobody(index: GraphIndex) -> str | None:
    sparse = {tensor.values.name for tensor in index.model.structure.graph.sparse_initializer}
    known = index.producer.keys() | index.inputs.keys() | index.initializers.keys() | sparse
    for position, node in enumerate(index.nodes):
        for name in filter(None, node.input):
            if name not in known:
                return f"the node {index.label(position)!r} reads the tensor {name!r}, which nothing makes"
    missing = next((name for name in index.outputs if name not in known), None)
    return f"nothing makes its output {missing!r}" if missing is not None else None


def _cycle(index: GraphIndex) -> str | None:
    waiting = {
        position: {made for name in index.reads(position) if (made := index.producer.get(name)) is not None}
        for position in range(len(index.nodes))
    }
    left = {position: len(sources) for position, sources in waiting.items()}
    ready = [position for position, count in left.items() if not count]
    while ready:
        position = ready.pop()
        del left[position]
        for reader in {r for name in index.nodes[position].output for r in index.consumers.get(name, ())}:
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    if not left:
        return None
    run, position = list[int](), min(left)
    while position not in run:  # each that is left waits for another that is left
        run.append(position)
        position = min(waiting[position] & left.keys())
    around = [index.label(p) for p in reversed(run[run.index(position) :])]
    if len(around) == 1:
        return f"the node {around[0]!r} reads what it makes itself"
    most = 4
    names = ", ".join(map(repr, around[:most])) + (f" and {len(around) - most} more" if len(around) > most else "")
    return f"the nodes {names} go round in a circle"
