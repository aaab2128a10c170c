"""Networks: the anatomy of each network of a file. Two that share nothing but an image have roles of their own."""

from __future__ import annotations

from collections.abc import Sequence

from .anatomy import Anatomy
from .block import RecognisedBlock
from .graph_view import View
from .pattern import HeadPattern
from .stage_end import Reading
from .strides import Strides


class Networks:
    """What belongs where, in all networks of a model."""

    def __init__(
        self, view: View, strides: Strides, blocks: Sequence[RecognisedBlock], heads: Sequence[HeadPattern]
    ) -> None:
        parts = _parts(view)
        self._network_of = {node: place for place, part in enumerate(parts) for node in part.active}
        held: list[list[RecognisedBlock]] = [[] for _ in parts]
        for block in blocks:
            held[self._network_of[min(block.nodes)]].append(block)
        self._all = [Anatomy(part, strides, own, heads) for part, own in zip(parts, held, strict=True)]
        self.blocks = [block for each in self._all for block in each.blocks]
        """the outermost blocks with their roles, network by network"""

    def role(self, name: str) -> list[str]:
        """The tensors of a role, in the order of the graph. KeyError for a role that does not exist."""
        return [tensor for each in self._all for tensor in each.role(name)]

    def readings(self, name: str) -> list[Reading]:
        """The maps of which one has a role, where structure does not tell which."""
        return [reading for each in self._all for reading in each.readings(name)]

    def of_node(self, node_index: int) -> str | None:
        """backbone, neck or head; None for nodes that work on sizes or constants only."""
        place = self._network_of.get(node_index)
        return None if place is None else self._all[place].of_node(node_index)


def _parts(view: View) -> list[View]:
    """The graphs of which none reads what another computes."""
    network: dict[int, int] = {}

    def of(node: int) -> int:
        while network[node] != node:
            network[node] = node = network[network[node]]
        return node

    for node in view.order:
        network[node] = node
        for name in view.inputs(node):
            producer = view.producer(name)
            if producer is not None and producer in network:
                network[of(producer)] = node
    orders: dict[int, list[int]] = {}
    for node in view.order:
        orders.setdefault(of(node), []).append(node)
    return [view] if len(orders) < 2 else [view.part(order) for order in orders.values()]
