"""Beside: earlier insertions that only some readers of their tensor see, and what lies behind them."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import SiteError
from ..graph.index import GraphIndex
from ..modelfile.record import Insertion

Reader = int | str
"""what reads a tensor: the position of a node, or the name of an output of the model"""


class Beside:
    """The insertions of a model that stand on one branch of a tensor, with those behind them on the same branch.

    The other readers still see the tensor itself; so such a block belongs to its readers rather than to the module
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

    def readers(self, tensor: str) -> set[Reader]:
        """The nodes that read a tensor, and the output of the model that it is."""
        found = set[Reader](self._index.consumers.get(tensor, ()))
        return found | {tensor} if tensor in self._index.outputs else found

    def branches(self, tensor: str) -> Iterator[tuple[Insertion, set[Reader]]]:
        """The insertions on branches of a tensor, and the positions of their nodes that read it."""
        for insertion in self._by_source.get(tensor, ()):
            if insertion.id in self._found:
                yield insertion, {r for r in self.readers(tensor) if self.owned_by(r) == insertion.id}

    def leaves(self, tensor: str) -> set[Reader]:
        """The readers of a tensor, and those of the branches in place of the insertions on them."""
        found, pending, seen = set[Reader](), [tensor], {tensor}
        while pending:
            tensor = pending.pop()
            direct = self.readers(tensor)
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
        return {p for p in nodes if self.owned_by(p) not in outside} if outside else nodes

    def _within(self, insertion: Insertion, nodes: set[int]) -> bool:
        """Whether the branch that an insertion stands on begins and ends among the nodes."""
        source, seen = insertion.site.tensor, {insertion.id}
        while source in self._made:
            before = self.owner.get(self._index.producer.get(source, -1))
            if before is None or before.id in seen:
                break
            seen.add(before.id)
            source = before.site.tensor
        return self._index.producer.get(source, -1) in nodes and self.leaves(insertion.output_tensor) <= nodes

    def owned_by(self, reader: Reader) -> str | None:
        """The id of the insertion that a node belongs to."""
        insertion = self.owner.get(reader) if isinstance(reader, int) else None
        return insertion.id if insertion else None

    def branch(self, tensor: str, chosen: set[Reader]) -> tuple[str, set[Reader]]:
        """The tensor, and the readers of it, that stand for the chosen ones among all that a tensor leads to.

        That is the tensor itself if other branches are chosen too, else the one at the end of the blocks that stand on
        the chosen branch already. No readers if none is chosen. SiteError where a block stands in front of some that
        are chosen and some that are not: what is put between them and it would be seen by both.
        """
        while True:
            wanted = self.readers(tensor) & chosen
            inner: list[tuple[Insertion, set[Reader], set[Reader], set[Reader]]] = []
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
