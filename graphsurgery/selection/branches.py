"""Beside: earlier insertions that only some consumers of their tensor see, and what lies behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import SiteError
from ..graph.index import GraphIndex
from ..modelfile.record import Insertion


@dataclass(frozen=True)
class NodeConsumer:
    """A node that reads a tensor, itself or in one of its subgraphs."""

    node_index: int


@dataclass(frozen=True)
class OutputConsumer:
    """An output of the model, which gives a tensor to whoever runs it."""

    name: str


Consumer: TypeAlias = NodeConsumer | OutputConsumer


def of_nodes(node_indexes: Iterable[int]) -> set[Consumer]:
    """Nodes as consumers."""
    return {NodeConsumer(node_index) for node_index in node_indexes}


def nodes_of(consumers: Iterable[Consumer]) -> set[int]:
    """The node indexes among consumers."""
    return {consumer.node_index for consumer in consumers if isinstance(consumer, NodeConsumer)}


def in_order(consumers: Iterable[Consumer]) -> list[Consumer]:
    """Nodes in the order of the file, then outputs."""
    return sorted(consumers, key=lambda c: (0, c.node_index) if isinstance(c, NodeConsumer) else (1, 0))


class Beside:
    """The insertions of a model that stand on one branch of a tensor, with those behind them on the same branch.

    The other consumers still see the tensor itself; so such a block belongs to its consumers rather than to the module
    whose tensor it reads.
    """

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self.owner: dict[int, Insertion] = {}
        """position of a node of any insertion -> the insertion"""
        self._by_source: dict[str, list[Insertion]] = {}
        insertions = index.model.insertions()
        for insertion in insertions:
            for name in insertion.nodes:
                self.owner.update(dict.fromkeys(index.node_names.get(name, ()), insertion))
            self._by_source.setdefault(insertion.site.tensor, []).append(insertion)
        self._found: dict[str, Insertion] = {}
        pending = [each for each in insertions if each.site.position == "before" or each.site.others]
        while pending:
            insertion = pending.pop()
            if insertion.id not in self._found:
                self._found[insertion.id] = insertion
                pending += self._by_source.get(insertion.output_tensor, ())
        self._made = {each.output_tensor for each in self._found.values()}

    def consumers(self, tensor: str) -> set[Consumer]:
        """The nodes that read a tensor, and the output of the model that it is."""
        found = of_nodes(self._index.consumers.get(tensor, ()))
        return found | {OutputConsumer(tensor)} if tensor in self._index.outputs else found

    def branches(self, tensor: str) -> Iterator[tuple[Insertion, set[Consumer]]]:
        """The insertions on branches of a tensor, and their nodes that read it."""
        for insertion in self._by_source.get(tensor, ()):
            if insertion.id in self._found:
                yield (
                    insertion,
                    of_nodes(p for p in self._index.consumers.get(tensor, ()) if self.owner.get(p) is insertion),
                )

    def leaves(self, tensor: str) -> set[Consumer]:
        """The consumers of a tensor, and those of the branches in place of the insertions on them."""
        found, pending, seen = set[Consumer](), [tensor], {tensor}
        while pending:
            tensor = pending.pop()
            direct = self.consumers(tensor)
            for insertion, entering in self.branches(tensor):
                if entering and insertion.output_tensor not in seen:
                    seen.add(insertion.output_tensor)
                    pending.append(insertion.output_tensor)
                    direct -= entering
            found |= direct
        return found

    def without(self, nodes: set[int], path: str) -> set[int]:
        """The nodes of a module without those of the insertions that lie on a branch into or out of it."""
        outside = {
            insertion.id
            for insertion in self._found.values()
            if path != insertion.id and not path.startswith(f"{insertion.id}.") and not self._within(insertion, nodes)
        }
        return {p for p in nodes if p not in self.owner or self.owner[p].id not in outside} if outside else nodes

    def _within(self, insertion: Insertion, nodes: set[int]) -> bool:
        """Whether the branch that an insertion stands on begins and ends among the nodes."""
        source, seen = insertion.site.tensor, {insertion.id}
        while source in self._made:
            before = self.owner.get(self._index.producer.get(source, -1))
            if before is None or before.id in seen:
                break
            seen.add(before.id)
            source = before.site.tensor
        return self._index.producer.get(source, -1) in nodes and self.leaves(insertion.output_tensor) <= of_nodes(nodes)

    def branch(self, tensor: str, chosen: set[Consumer]) -> tuple[str, set[Consumer]]:
        """The tensor, and the consumers of it, that stand for the chosen ones among all that a tensor leads to.

        That is the tensor itself if other branches are chosen too, else the one at the end of the blocks that stand on
        the chosen branch already. No consumers if none is chosen. SiteError where a block stands in front of some that
        are chosen and some that are not: what is put between them and it would be seen by both.
        """
        while True:
            wanted = self.consumers(tensor) & chosen
            inner: list[tuple[Insertion, set[Consumer], set[Consumer], set[Consumer]]] = []
            for insertion, entering in self.branches(tensor):
                below = self.leaves(insertion.output_tensor)
                if not entering & chosen and below & chosen:
                    inner.append((insertion, entering, below, below & chosen))
            if len(inner) == 1 and not wanted:
                tensor = inner[0][0].output_tensor
                continue
            for insertion, entering, below, mine in inner:
                if mine != below:
                    raise SiteError(
                        f"the insertion {insertion.id} stands in front of some of the consumers that are named and of "
                        "some that are not; name all of them, or only those behind it"
                    )
                wanted |= entering
            return tensor, wanted
