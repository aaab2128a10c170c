"""Wiring: which rows of an outline the maps go from and to, and through which inserted blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..graph.index import GraphIndex

if TYPE_CHECKING:
    from ..modelfile.record import Insertion
    from ..recognition.graph_view import View

_Origin = tuple[str | None, tuple[str, ...]]
"""name of a row, None for an input of the model; ids of the inserted blocks behind it"""


@dataclass(frozen=True)
class Edge:
    """A map on its way from one row to another; ``source`` None is an input of the model, ``target`` None an output."""

    source: str | None
    target: str | None
    through: tuple[str, ...]
    """ids of the inserted blocks on the way"""


class Wiring:
    """The edges between rows: sets of nodes, each with its name, in the order of the graph.

    ``insertions``: what an inserted block gives -> the insertion.
    """

    def __init__(
        self,
        index: GraphIndex,
        view: View,
        rows: Sequence[tuple[Collection[int], str]],
        insertions: Mapping[str, Insertion],
    ) -> None:
        self._index = index
        self._view = view
        self._rows = rows
        self._insertions = insertions
        self._row_at = {position: name for nodes, name in rows for position in nodes}
        self._between: dict[int, dict[_Origin, None]] = {}
        """position of a node in no row -> the rows that it reads from"""
        for position in view.order:
            if position not in self._row_at:
                self._between[position] = dict.fromkeys(self._read_by(position))

    def edges(self) -> list[Edge]:
        """All of them, in the order of their targets; what lies between rows is left out."""
        found: dict[Edge, None] = {}
        for nodes, name in self._rows:
            for position in sorted(nodes, key=lambda p: self._view.place.get(p, -1)):
                for source, through in self._read_by(position):
                    if source != name:
                        found.setdefault(Edge(source, name, through))
        for output in self._index.outputs:
            through = self._through(output)
            for source, before in self._origins(self._view.root(output)):
                found.setdefault(Edge(source, None, (*before, *through)))
        return list(found)

    def _read_by(self, position: int) -> Iterator[_Origin]:
        for name in dict.fromkeys(self._index.nodes[position].input):
            root = self._view.root(name)
            if name and root in self._view.inputs(position):
                through = self._through(name)
                for source, before in self._origins(root):
                    yield source, (*before, *through)

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
                position = self._index.producer.get(tensor)
                tensor = self._index.nodes[position].input[0] if position is not None else root
        return tuple(reversed(passed))

    def _origins(self, root: str) -> list[_Origin]:
        """The rows that a tensor comes from; nodes that are in none are looked through."""
        position = self._view.producer(root)
        if position is None:
            return [(None, ())] if root in self._index.inputs and root not in self._index.initializers else []
        if position in self._row_at:
            return [(self._row_at[position], ())]
        return list(self._between.get(position, ()))
