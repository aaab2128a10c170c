"""Subgraphs of nodes (branches of an If, bodies of loops), and the outer tensors that are read in them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

_HOLDING = frozenset({onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS, onnx.AttributeProto.UNDEFINED})
"""types of attributes with graphs in them; files of the first versions of ONNX state none"""


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute[:]:  # a slice is a list at once: the container itself gives one after the other
        if attribute.type in _HOLDING:
            if attribute.HasField("g"):
                found.append(attribute.g)
            found += attribute.graphs
    return found


def nested(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The subgraphs of a node, and those of the nodes in them."""
    pending = [node]
    while pending:
        for graph in subgraphs(pending.pop()):
            yield graph
            pending += graph.node


def defined(graph: onnx.GraphProto) -> set[str]:
    """The names that a graph gives to tensors of its own; in it, they hide those of the graphs around it."""
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        names.update(node.output)
    return names


def reads(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads: its inputs, and what its subgraphs, however deep, take from outside."""
    names = captures(node).union(node.input)
    names.discard("")
    return names


def captures(node: onnx.NodeProto) -> set[str]:
    """What the subgraphs of a node, however deep, take from outside."""
    names = set[str]()
    pending = [(graph, set[str]()) for graph in subgraphs(node)]
    while pending:
        graph, outer = pending.pop()
        own = outer | defined(graph)
        names.update(value.name for value in graph.output if value.name not in own)
        for inner in graph.node:
            names.update(name for name in inner.input if name not in own)
            pending += [(each, own) for each in subgraphs(inner)]
    names.discard("")
    return names
