"""Narrowing: an insertion for some of the consumers of a tensor only."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SelectorError
from ..graph import quantisation
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..messages import listed
from .branches import Consumer, OutputConsumer, in_order, nodes_of, of_nodes
from .resolver import Resolver
from .text import Text


class Narrowing:
    """The consumers that selectors name. SelectorError for a selector that names nothing."""

    def __init__(self, selectors: Sequence[str], resolver: Resolver, index: GraphIndex, tree: ModuleTree) -> None:
        self._chosen = {selector: resolver.resolve_consumers(selector) for selector in selectors}
        for consumers in self._chosen.values():
            consumers |= of_nodes(quantisation.feeding(index, nodes_of(consumers), quantisation.PASSING))
        self._every = set[Consumer]().union(*self._chosen.values())
        self._unused = dict.fromkeys(selectors)
        self._seen: dict[str, None] = {}
        self._beside = resolver.edges.beside
        self._index = index
        self._tree = tree

    def narrowed(self, tensor: str) -> tuple[str, set[Consumer]]:
        """The tensor at which to insert for the chosen consumers of this one, and the consumers to rewire.

        SelectorError if none of its consumers is chosen.
        """
        at, consumers = self._beside.branch(tensor, self._every)
        self._seen[tensor] = None
        if not consumers:
            raise self._no_consumer(list(self._chosen), [tensor])
        reached = self._beside.leaves(tensor) | self._beside.consumers(tensor)
        self._unused = {name: None for name in self._unused if not self._chosen[name] & reached}
        return at, consumers

    def check(self) -> None:
        """SelectorError if one of the selectors named no consumer of any tensor."""
        if self._unused:
            raise self._no_consumer(list(self._unused), list(self._seen))

    def _no_consumer(self, selectors: Sequence[str], tensors: Sequence[str]) -> SelectorError:
        consumers = dict.fromkeys(self._spelled(c) for t in tensors for c in in_order(self._beside.leaves(t)))
        whose = repr(tensors[0]) if len(tensors) == 1 else "the tensors"
        has = f"is read by {listed(consumers, 8)}" if consumers else "is read by nothing"
        has = has if len(tensors) == 1 else has.replace("is", "are", 1)
        if len(selectors) == 1:
            return Text.of(selectors[0]).strip().error(f"--consumers names no reader of {whose}, which {has}")
        return SelectorError(f"{' and '.join(map(repr, selectors))} name no reader of {whose}, which {has}")

    def _spelled(self, consumer: Consumer) -> str:
        """A selector for a consumer."""
        if isinstance(consumer, OutputConsumer):
            return f"output:{consumer.name}"
        path = self._tree.of_node[consumer.node_index]
        if path:
            return self._tree.modules[path].display
        node = self._index.nodes[consumer.node_index]
        if node.name and len(self._index.node_names[node.name]) == 1:
            return f"node:{node.name}"
        same = [p for p, other in enumerate(self._index.nodes) if other.op_type == node.op_type]
        return f"op:{node.op_type}[{same.index(consumer.node_index)}]"
