"""torch's MultiheadAttention as exporters write it: products and a softmax, and no module of its own for q, k and v."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..feature_map import Array
from ..modelfile.operators import operator
from .exported_graph import RESHAPING, ExportedGraph

_ON_THE_WAY = RESHAPING | {"Mul", "Div", "Cast", "Split", "Slice", "Gather"}
"""Between a linear layer and the product that it goes into."""


@dataclass(frozen=True)
class Projection:
    """One of the linear layers that make q, k and v."""

    node_index: int
    biased: bool
    weight: Callable[[], Array]
    """[out, in]"""
    bias: Callable[[], Array]
    """zeros where it has none"""


def projections(graph: ExportedGraph, softmax: int) -> list[Projection]:
    """The layers of q, k and v around a softmax, one that gives several of them once; [] if it is no such attention.

    Two products with the softmax in between; what goes into them comes out of linear layers of the same module.
    """
    path, nodes = graph.tree.of_node[softmax], graph.index.nodes
    logits = graph.producer(nodes[softmax].input[0], ("MatMul",), path, _ON_THE_WAY | {"Add"})
    after = graph.only_consumer(softmax)
    if not path or logits is None or after is None or operator(nodes[after]) != "MatMul":
        return []
    ends = [*nodes[logits].input, *(name for name in nodes[after].input if name not in nodes[softmax].output)]
    found = [each for name in ends if (each := _projection(graph, name, path)) is not None]
    return list({each.node_index: each for each in found}.values()) if len(found) == 3 else []


def _projection(graph: ExportedGraph, name: str, path: str) -> Projection | None:
    """The linear layer that a tensor comes from, in the module."""
    added = graph.producer(name, ("Add",), path, _ON_THE_WAY)
    inputs = list(graph.index.nodes[added].input) if added is not None else [name]
    bias = next((each for each in inputs if graph.source(each)), "")
    rest = next((each for each in inputs if each != bias), "")
    node_index = graph.producer(rest, ("MatMul", "Gemm"), path, frozenset() if bias else _ON_THE_WAY)
    if node_index is None or not (weight := graph.source(graph.index.nodes[node_index].input[1])):
        return None
    node = graph.index.nodes[node_index]
    bias = graph.source(bias or (node.input[2] if len(node.input) > 2 else ""))
    stored = any(each.name == "transB" and each.i for each in node.attribute)

    def rows() -> Array:
        return graph.tensor(weight) if stored else graph.tensor(weight).T

    return Projection(
        node_index, bool(bias), rows, lambda: graph.tensor(bias) if bias else np.zeros(len(rows()), np.float32)
    )
