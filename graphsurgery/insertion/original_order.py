"""OriginalOrder: where the fields of a graph stood before its first insertion, and where those taken out go back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from ..graph.index import GraphIndex
from ..modelfile.fields import INITIALIZER, NODE, VALUE_INFO


class Returning(NamedTuple):
    """A field that goes back into the graph."""

    at: int
    """its place among all fields of the original"""
    data: bytes
    """tag, length and content"""
    latest: int | None
    """the place of a field in the graph as it is that it has to stand before; None: there is no such"""
    appended: int | None = None
    """its number, if insertions add theirs of this number after all others; nodes stand where they are computed"""


class OriginalOrder:
    """The fields of a graph that came with no insertion have kept their order. So their places in the original follow
    from those of the ones that blocks have replaced, which records tell.
    """

    def __init__(self, index: GraphIndex) -> None:
        graph, records = index.model.structure.graph, index.insertions
        names = {NODE: graph.node, INITIALIZER: graph.initializer, VALUE_INFO: graph.value_info}
        came = {
            NODE: {name for each in records for name in each.nodes},
            INITIALIZER: {name for each in records for name in each.added},
            VALUE_INFO: {name for each in records for name in each.value_info},
        }
        gone = {at for each in records if each.replaced for at in each.replaced.at}
        free = (at for at in count() if at not in gone)
        self._data = index.model.graph_fields()
        self._places: dict[tuple[int, int], int] = {}
        self._originally: dict[int, int] = {}
        self._came: dict[int, int] = {}
        """number of a field -> place of the first that an insertion added: after all of the original"""
        positions = Counter[int]()
        for place, (number, _) in enumerate(self._data):
            position = positions[number]
            positions[number] += 1
            self._places[number, position] = place
            if number not in names or names[number][position].name not in came[number]:
                self._originally[place] = next(free)
            else:
                self._came.setdefault(number, place)

    def place(self, number: int, position: int) -> int:
        """The place among all fields of the graph, by number and position among those of the number."""
        return self._places[number, position]

    def taken_out(self, fields: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], list[bytes]]:
        """Fields of the original, given by number and position: their places there, and each one's bytes, in that
        order.
        """
        places = sorted(self._places[each] for each in fields)
        return tuple(self._originally[place] for place in places), [self._data[place][1].data for place in places]

    def put_back(self, fields: Iterable[Returning], bounds: Iterable[tuple[int, int]] = ()) -> dict[int, list[bytes]]:
        """What to put before which field of the graph (see ``Edit.restored``), so that everything of the original is in
        its order again.

        ``bounds``: of blocks that go on standing in the place of something, where its last node stood in the original,
        and where their first node stands: what was before the one has to be before the other, where that will return.
        """
        kept = [(at, place, None) for place, at in self._originally.items()]
        kept += [(at, place, None) for at, place in bounds]
        fields = list(fields)
        kept += [(each.at, self._came[each.appended], None) for each in fields if each.appended in self._came]
        found: dict[int, list[bytes]] = {}
        before = len(self._data)
        returning = ((each.at, each.latest, each.data) for each in fields)
        for _, place, data in sorted([*kept, *returning], key=lambda each: each[0], reverse=True):
            before = before if place is None else min(before, place)
            if data is not None:
                found.setdefault(before, []).insert(0, data)
        return found
