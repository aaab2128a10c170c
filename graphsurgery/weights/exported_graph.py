"""ExportedGraph: a graph that an exporter wrote, with the module of each node and the sources of its tensors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable

from ..blocks.block import Array
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..modelfile.operators import operator

RESHAPING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"})
_ACTIVATION = "torch.nn.modules.activation."
_ACTIVATIONS = {
    frozenset({"Relu"}): "ReLU",
    frozenset({"Sigmoid"}): "Sigmoid",
    frozenset({"HardSigmoid"}): "Hardsigmoid",
    frozenset({"Sigmoid", "Mul"}): "SiLU",
    frozenset({"Swish"}): "SiLU",
    frozenset({"HardSwish"}): "Hardswish",
    frozenset({"Gelu"}): "GELU",
    frozenset({"Div", "Erf", "Add", "Mul"}): "GELU",
    frozenset({"Softmax"}): "Softmax",
}
"""the operators of a module with no other -> its class"""
_BY_EXPORTER = re.compile(r".*(::|/).*|[a-z_]+_\d+|getitem|scalar_tensor_default|.+\.weight_bias")


def named_by_exporter(name: str) -> bool:
    """Whether an initializer's name is none of a parameter: that of a constant which an exporter computed, or of a bias
    that it folded a BatchNorm into.
    """
    return _BY_EXPORTER.fullmatch(name) is not None


class ExportedGraph:
    """The main graph of a model, with the module of each node."""

    def __init__(
        self, index: GraphIndex, floats: dict[str, Callable[[], Array]], tensor: Callable[[str], Array]
    ) -> None:
        """``floats``: the initializers that can be weights, read when called; ``tensor`` reads any, or a Constant."""
        self.index, self.floats, self.tensor = index, floats, tensor
        self.tree = ModuleTree(index)

    @property
    def activations(self) -> dict[str, str]:
        """The modules that are nothing but an activation, with their class as module.name."""
        operators = defaultdict[str, set[str]](set)
        for node, path in zip(self.index.nodes, self.tree.of_node, strict=True):
            operators[path].add(operator(node))
        found = {path: _ACTIVATIONS.get(frozenset(kinds - {"Constant"})) for path, kinds in operators.items() if path}
        return {path: _ACTIVATION + kind for path, kind in found.items() if kind}

    def source(self, name: str) -> str:
        """The initializer that a tensor is, perhaps through Identity, which stands for one of equal values; else ""."""
        while name not in self.floats:
            node_index = self.index.producer.get(name)
            if node_index is None or operator(self.index.nodes[node_index]) != "Identity":
                return ""
            name = self.index.nodes[node_index].input[0]
        return name

    def only_consumer(self, node_index: int) -> int | None:
        """The one node that consumes what a node produces; None if there is none, or several."""
        outputs = self.index.nodes[node_index].output
        consumers = [each for name in outputs for each in self.index.consumers.get(name, ())]
        return consumers[0] if len(consumers) == 1 else None

    def is_constant(self, name: str, value: float) -> bool:
        """Whether a tensor is a constant that holds one value throughout."""
        name = self.source(name) or name
        return self.index.is_constant(name) and bool((self.tensor(name) == value).all())

    def producer(self, name: str, operators: tuple[str, ...], path: str, through: frozenset[str]) -> int | None:
        """The node of some operators that produces a tensor, perhaps by way of others, all of them in one module."""
        while (node_index := self.index.producer.get(name)) is not None and self.tree.of_node[node_index] == path:
            node = self.index.nodes[node_index]
            if operator(node) in operators:
                return node_index
            if operator(node) not in through:
                return None
            name = node.input[0]
        return None
