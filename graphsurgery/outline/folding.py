"""Folding: runs of rows that are one block to a reader, though none is recognised: maps part in them and meet again.

A shuffle unit, a residual block or a context module that no pattern knows is drawn as one box by this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..graph.module_paths import common_path
from .rows import LEVEL

if TYPE_CHECKING:
    from ..graph.module_paths import ModuleTree
    from .edges import Edge
    from .rows import Row

_MOST = 16
"""rows in one fold: what is larger is a part of a network and no block"""
_LEAST = 3
_OUTSIDE = -1


def folds(rows: Sequence[Row], edges: Sequence[Edge], simple: Collection[str]) -> list[tuple[str, ...]]:
    """Names of the rows of each fold, in order: all that lies between a row and where all ways from it meet again.

    Such rows are all ``simple``, have one role and one stride, and none but the last is read elsewhere, or is a level
    of the pyramid. A depthwise convolution and the pointwise one that it leads to are a fold, too. ``rows`` are in the
    order of the graph.
    """
    graph = _Graph(rows, edges, simple)
    found = sorted(filter(None, map(graph.region, range(len(rows)))), key=len, reverse=True)
    taken: set[int] = set()
    kept = []
    for region in found:
        if taken.isdisjoint(region):
            region += list(graph.trailing(region[-1], taken))
            taken.update(region)
            kept.append(region)
    kept += filter(taken.isdisjoint, graph.separable())
    return [tuple(rows[i].name for i in region) for region in kept]


def together(tree: ModuleTree, nodes: Collection[int], sizes: Mapping[str, int]) -> str | None:
    """The module that has these nodes and no others, as the model spells it. ``sizes``: path -> how many it has."""
    innermost = common_path([tree.of_node[node_index] for node_index in nodes])
    is_whole = innermost in tree.modules and sizes[innermost] == len(nodes)
    return tree.modules[innermost].display if is_whole else None


class _Graph:
    """The rows by number, and what each reads and is read by."""

    def __init__(self, rows: Sequence[Row], edges: Sequence[Edge], simple: Collection[str]) -> None:
        self._rows, self._simple = rows, simple
        number = {row.name: i for i, row in enumerate(rows)}
        self._before: list[set[int]] = [set() for _ in rows]
        self._after: list[set[int]] = [set() for _ in rows]
        for edge in edges:
            source, target = (number.get(end or "", _OUTSIDE) for end in (edge.source, edge.target))
            if target != _OUTSIDE:
                self._before[target].add(source)
            if source != _OUTSIDE:
                self._after[source].add(target)
        self._dominator, self._rank = self._dominators()

    def _dominators(self) -> tuple[list[int], list[int]]:
        """For each row, the nearest one that all ways to it go through, and how many such there are."""
        dominator, rank = [_OUTSIDE] * len(self._rows), [1] * len(self._rows)
        for i, before in enumerate(self._before):
            ways = {each if each < i else _OUTSIDE for each in before} or {_OUTSIDE}
            while len(ways) > 1 and _OUTSIDE not in ways:
                deepest = max(ways, key=rank.__getitem__)
                ways = (ways - {deepest}) | {dominator[deepest]}
            dominator[i] = _OUTSIDE if _OUTSIDE in ways else ways.pop()
            rank[i] = 1 + (rank[dominator[i]] if dominator[i] != _OUTSIDE else 0)
        return dominator, rank

    def region(self, end: int) -> list[int] | None:
        """The fold that ends at a row, if one does."""
        start = self._dominator[end]
        if len(self._before[end]) < 2 or start == _OUTSIDE:
            return None
        found, pending = {end}, [end]
        while pending:
            for each in self._before[pending.pop()] - found - {start}:
                if each == _OUTSIDE or len(found) == _MOST:
                    return None
                found.add(each)
                pending.append(each)
        inner = found - {end}
        if len(found) < _LEAST or not all(self._belongs(i, end) for i in found):
            return None
        return None if any(self._is_level(i) or not self._after[i] <= found for i in inner) else sorted(found)

    def trailing(self, end: int, taken: Collection[int]) -> Iterator[int]:
        """Single nodes that only continue a fold: an activation, a shuffle of channels."""
        while not self._is_level(end) and len(self._after[end]) == 1:
            (after,) = self._after[end]
            if after == _OUTSIDE or after in taken or len(self._before[after]) > 1:
                return
            if not self._rows[after].is_node or not self._belongs(after, end):
                return
            yield after
            end = after

    def separable(self) -> Iterator[list[int]]:
        """Depthwise convolutions, each with the pointwise one that alone reads it."""
        for i, row in enumerate(self._rows):
            if row.type == "DWConv" and len(self._after[i]) == 1 and not self._is_level(i):
                (after,) = self._after[i]
                alone = after != _OUTSIDE and self._before[after] == {i}
                if alone and self._rows[after].type == "Conv" and self._belongs(i, after):
                    yield [i, after]

    def _belongs(self, i: int, end: int) -> bool:
        """Whether two rows can be of one fold."""
        row, last = self._rows[i], self._rows[end]
        return row.name in self._simple and (row.role, row.stride) == (last.role, last.stride)

    def _is_level(self, i: int) -> bool:
        return any(LEVEL.fullmatch(role) for role in self._rows[i].roles)
