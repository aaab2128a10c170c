"""What is wrong with a graph itself, so that no runtime could run it whatever is inserted."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from ..messages import listed
from .index import GraphIndex


def fault(index: GraphIndex) -> str | None:
    """What is wrong with the main graph, in one sentence: a cycle, a tensor that has two producers or none."""
    if is_in_order(index):
        return None
    said = _produced_twice(index) or _never_produced(index) or _cycle(index)
    return f"{index.model.name} is no valid model, and no runtime can run it: {said}" if said else None


def is_in_order(index: GraphIndex) -> bool:
    """Whether every tensor is produced once, before it is read: then nothing else has to be looked at."""
    known = {*index.inputs, *index.initializers}
    for node_index, outputs in enumerate(index.named_outputs):
        once = known.isdisjoint(outputs) and len(set(outputs)) == len(outputs)
        if not once or not known.issuperset(index.reads(node_index)):
            return False
        known.update(outputs)
    return known.issuperset(index.outputs)


def _produced_twice(index: GraphIndex) -> str | None:
    producer = dict.fromkeys(index.free_inputs, "an input of the model")
    producer |= dict.fromkeys(index.initializers, "an initializer")
    for node_index, node in enumerate(index.nodes):
        here = f"the node {index.label(node_index)!r}"
        for name in filter(None, node.output):
            if name in producer:
                return f"the tensor {name!r} is made twice, by {producer[name]} and by {here}"
            producer[name] = here
    return None


def _never_produced(index: GraphIndex) -> str | None:
    sparse = {tensor.values.name for tensor in index.model.structure.graph.sparse_initializer}
    known = index.producer.keys() | index.inputs.keys() | index.initializers.keys() | sparse
    for node_index, node in enumerate(index.nodes):
        for name in filter(None, node.input):
            if name not in known:
                return f"the node {index.label(node_index)!r} reads the tensor {name!r}, which nothing makes"
    missing = next((name for name in index.outputs if name not in known), None)
    return f"nothing makes its output {missing!r}" if missing is not None else None


def _cycle(index: GraphIndex) -> str | None:
    reads = (index.reads(node_index) for node_index in range(len(index.nodes)))
    upstream = {n: [index.producer[name] for name in names if name in index.producer] for n, names in enumerate(reads)}
    try:
        TopologicalSorter(upstream).prepare()
    except CycleError as error:
        cycle: list[int] = error.args[1][1:]  # in the order of the data; it begins and ends with the same node
    else:
        return None
    first = cycle.index(min(cycle)) + 1
    labels = [repr(index.label(node_index)) for node_index in (*cycle[first:], *cycle[:first])]
    if len(labels) == 1:
        return f"the node {labels[0]} reads what it makes itself"
    return f"the nodes {listed(labels, 4)} go round in a circle"
