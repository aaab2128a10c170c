"""Consumers of a tensor, and earlier insertions that only some of them see, with everything downstream of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from ..errors import SiteError
from ..graph.index import GraphIndex, reached
from ..modelfile.record import Insertion


class NodeConsumer(NamedTuple):
    """A node that reads a tensor, itself or in one of its subgraphs."""

    node_index: int


class OutputConsumer(NamedTuple):
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


class Branches:
    """The insertions of a model on one branch of a tensor, and those downstream of them on that branch.

    The other consumers still see the tensor itself; so such a block belongs to its consumers rather than to the module
    whose tensor it reads.
    """

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._owner = index.insertion_of
        self._by_source = index.insertions_at
        every = {each.id: each for each in index.insertions}
        first = (each.id for each in every.values() if each.site.position == "before" or each.site.others)
        found = reached(first, lambda id: (each.id for each in self._by_source.get(every[id].output_tensor, ())))
        self._found = {id: every[id] for id in found}
        self._outputs = {each.output_tensor for each in self._found.values()}

    def consumers(self, tensor: str) -> set[Consumer]:
        """The nodes that read a tensor, and the output of the model that it is."""
        consumers = of_nodes(self._index.consumers.get(tensor, ()))
        return consumers | {OutputConsumer(tensor)} if tensor in self._index.outputs else consumers

    def branches(self, tensor: str) -> Iterator[tuple[Insertion, set[Consumer]]]:
        """The insertions on branches of a tensor, and their nodes that read it."""
        for insertion in self._by_source.get(tensor, ()):
            if insertion.id in self._found:
                nodes = self._index.consumers.get(tensor, ())
                yield insertion, of_nodes(n for n in nodes if self._owner.get(n) is insertion)

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
        """The nodes of a module without those of the insertions on a branch into or out of it."""
        outside = {
            insertion.id
            for insertion in self._found.values()
            if path != insertion.id and not path.startswith(f"{insertion.id}.") and not self._within(insertion, nodes)
        }
        return {n for n in nodes if n not in self._owner or self._owner[n].id not in outside} if outside else nodes

    def _within(self, insertion: Insertion, nodes: set[int]) -> bool:
        """Whether the branch that an insertion is on begins and ends among the nodes."""
        source, seen = insertion.site.tensor, {insertion.id}
        while source in self._outputs:
            upstream = self._owner.get(self._index.producer.get(source, -1))
            if upstream is None or upstream.id in seen:
                break
            seen.add(upstream.id)
            source = upstream.site.tensor
        return self._index.producer.get(source, -1) in nodes and self.leaves(insertion.output_tensor) <= of_nodes(nodes)

    def branch(self, tensor: str, chosen: set[Consumer]) -> tuple[str, set[Consumer]]:
        """The tensor, and the consumers of it, that stand for the chosen ones among all that a tensor leads to.

        That is the tensor itself if other branches are chosen too, else the one at the end of the blocks that are on
        the chosen branch already. No consumers if none is chosen. SiteError where a block is upstream of some that are
        chosen and some that are not: what is put between them and it would be seen by both.
        """
        while True:
            wanted = self.consumers(tensor) & chosen
            inner: list[tuple[Insertion, set[Consumer], bool]] = []
            for insertion, entering in self.branches(tensor):
                below = self.leaves(insertion.output_tensor)
                if not entering & chosen and below & chosen:
                    inner.append((insertion, entering, below <= chosen))
            if len(inner) == 1 and not wanted:
                tensor = inner[0][0].output_tensor
                continue
            for insertion, entering, whole in inner:
                if not whole:
                    raise SiteError(
                        f"the insertion {insertion.id} stands in front of some of the consumers that are named and of "
                        "some that are not; name all of them, or only those behind it"
                    )
                wanted |= entering
            return tensor, wanted
