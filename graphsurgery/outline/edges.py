"""Edges: from which row of an outline to which others the maps go, and through which inserted blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..graph.index import GraphIndex

if TYPE_CHECKING:
    from ..modelfile.record import Insertion
    from ..recognition.graph_view import View

_Origin = tuple[str | None, tuple[str, ...]]
"""name of a row, None for an input of the model; ids of the inserted blocks after it"""


@dataclass(frozen=True)
class Edge:
    """A map on its way from one row to another; ``source`` None is an input of the model, ``target`` None an output.

    Between parts of a block they are what enters and what leaves the block.
    """

    source: str | None
    target: str | None
    through: tuple[str, ...]
    """ids of the inserted blocks on the way"""


class Wiring:
    """The edges between rows: sets of nodes, each with its name, in the order of the graph.

    ``insertions``: the output of an inserted block -> the insertion. ``whole`` is what the rows are parts of, its nodes
    and the root that leaves it: what enters and leaves that is meant then, and not the inputs and outputs of the model.
    """

    def __init__(
        self,
        index: GraphIndex,
        view: View,
        rows: Sequence[tuple[Collection[int], str]],
        insertions: Mapping[str, Insertion],
        whole: tuple[Collection[int], str] | None = None,
    ) -> None:
        self._index = index
        self._view = view
        self._rows = rows
        self._insertions = insertions
        self._whole: Collection[int] | None = whole[0] if whole else None
        self._outputs: Collection[str] = [whole[1]] if whole else index.outputs
        self._row_at = {node_index: name for nodes, name in rows for node_index in nodes}
        self._between: dict[int, dict[_Origin, None]] = {}
        """index of a node in no row -> the rows that it consumes"""
        for node_index in view.order if self._whole is None else self._in_order(self._whole):
            if node_index not in self._row_at:
                self._between[node_index] = dict.fromkeys(self._consumed_by(node_index))

    def edges(self) -> list[Edge]:
        """All of them, in the order of their targets; what lies between rows is left out."""
        found: dict[Edge, None] = {}
        for nodes, name in self._rows:
            for node_index in self._in_order(nodes):
                for source, through in self._consumed_by(node_index):
                    if source != name:
                        found.setdefault(Edge(source, name, through))
        for output in self._outputs:
            through = self._through(output)
            for source, before in self._origins(self._view.root(output)):
                found.setdefault(Edge(source, None, (*before, *through)))
        return list(found)

    def _in_order(self, nodes: Collection[int]) -> list[int]:
        return sorted(nodes, key=lambda node_index: self._view.place.get(node_index, -1))

    def _consumed_by(self, node_index: int) -> Iterator[_Origin]:
        for name in dict.fromkeys(self._index.nodes[node_index].input):
            root = self._view.root(name)
            if name and root in self._view.inputs(node_index):
                through = self._through(name)
                for source, before in self._origins(root):
                    yield source, () if source is None and self._whole is not None else (*before, *through)

    def _through(self, tensor: str) -> tuple[str, ...]:
        """The insertions between a tensor and its root, the nearest to the root first."""
        passed: list[str] = []
        root, seen = self._view.root(tensor), set[str]()
        while tensor != root and tensor not in seen:
            seen.add(tensor)
            insertion = self._insertions.get(tensor)
            if insertion is not None:
                passed.append(insertion.id)
                tensor = insertion.site.tensor
            else:
                node_index = self._index.producer.get(tensor)
                tensor = self._index.nodes[node_index].input[0] if node_index is not None else root
        return tuple(reversed(passed))

    def _origins(self, root: str) -> list[_Origin]:
        """The rows that a tensor comes from; nodes that are in none are looked through."""
        node_index = self._view.producer(root)
        if node_index is None:
            return [(None, ())] if root in self._index.inputs and root not in self._index.initializers else []
        if node_index in self._row_at:
            return [(self._row_at[node_index], ())]
        if self._whole is not None and node_index not in self._whole:
            return [(None, ())]
        return list(self._between.get(node_index, ()))
