"""ConsumerChoice: insertions for some of the consumers of a tensor only."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SelectorError, concerning, option
from ..graph import quantisation
from ..messages import listed
from .branches import Consumer, OutputConsumer, in_order, nodes_of, of_nodes
from .context import Context
from .resolver import Resolver
from .text import Text


class ConsumerChoice:
    """The consumers that selectors name. SelectorError for a selector that names nothing."""

    @concerning("consumers")
    def __init__(self, selectors: Sequence[str], resolver: Resolver, context: Context) -> None:
        self._context = context
        self._branches = resolver.borders.branches
        self._chosen = {selector: resolver.resolve_consumers(selector) for selector in selectors}
        for consumers in self._chosen.values():
            consumers |= of_nodes(quantisation.feeding(context.index, nodes_of(consumers), quantisation.PASSING))
        self._every = set[Consumer]().union(*self._chosen.values())
        self._unused = dict.fromkeys(selectors)
        self._seen: dict[str, None] = {}

    @concerning("consumers")
    def at(self, tensor: str) -> tuple[str, set[Consumer]]:
        """The tensor at which to insert for the chosen consumers of this one, and the consumers to rewire.

        SelectorError if none of its consumers is chosen.
        """
        site, consumers = self._branches.branch(tensor, self._every)
        self._seen[tensor] = None
        if not consumers:
            raise self._no_consumer(list(self._chosen), [tensor])
        reached = self._branches.leaves(tensor) | self._branches.consumers(tensor)
        self._unused = {name: None for name in self._unused if not self._chosen[name] & reached}
        return site, consumers

    @concerning("consumers")
    def check(self) -> None:
        """SelectorError if one of the selectors named no consumer of any tensor."""
        if self._unused:
            raise self._no_consumer(list(self._unused), list(self._seen))

    def _no_consumer(self, selectors: Sequence[str], tensors: Sequence[str]) -> SelectorError:
        consumers = dict.fromkeys(self._selector(c) for t in tensors for c in in_order(self._branches.leaves(t)))
        kept = self._context.suggestions.accepted(dict.fromkeys(consumers, ""), use="consumers")
        whose = f"{tensors[0]!r}, which is" if len(tensors) == 1 else "the tensors, which are"
        sentence = f"no consumer of {whose} read by {listed(consumers, 8) if consumers else 'nothing'}"
        if len(selectors) == 1:
            return Text.of(selectors[0]).strip().error(f"{option('consumers')} names {sentence}", kept)
        named = " and ".join(map(repr, selectors))
        return SelectorError(f"{named} name {sentence}", candidates=tuple(kept))

    def _selector(self, consumer: Consumer) -> str:
        """A selector for a consumer."""
        if isinstance(consumer, OutputConsumer):
            return f"output:{consumer.name}"
        index, tree = self._context.index, self._context.tree
        path, node = tree.of_node[consumer.node_index], index.nodes[consumer.node_index]
        if path:
            return tree.modules[path].display
        if len(index.node_names.get(node.name, ())) == 1:
            return f"node:{node.name}"
        same = [node_index for node_index, other in enumerate(index.nodes) if other.op_type == node.op_type]
        return f"op:{node.op_type}[{same.index(consumer.node_index)}]"
