"""Nesting: blocks and what is in them, level by level: as rows for a table, and as levels for a picture.

A part behind which a block is inserted is there however few levels are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..graph.module_paths import enclosing
from .edges import Edge, Wiring
from .folding import folds, together
from .standing import FOUND, IN_PLACE, StandingBlock

if TYPE_CHECKING:
    from ..recognition import RecognisedBlock
    from ..recognition.graph_view import View
    from .row_builder import RowBuilder
    from .rows import Row


@dataclass(frozen=True)
class Level:
    """Rows side by side, how they are wired, and what is shown inside of them."""

    rows: tuple[Row, ...]
    edges: tuple[Edge, ...]
    insertions: tuple[str, ...]
    """ids of the blocks that are inserted between these rows"""
    inside: Mapping[str, Level]
    """name of a row -> what is shown in it"""
    members: Mapping[str, tuple[str, ...]]
    """name of a row that stands for several -> their names"""


@dataclass(frozen=True, slots=True)
class _Unit:
    """What becomes one row."""

    name: str
    root: str
    nodes: frozenset[int]
    of: RecognisedBlock | int | tuple[_Unit, ...] | StandingBlock
    """a block, a node, several units that no block is known of, or a block that was found or put in some part's place
    """
    part: str | None = None

    def holds(self, root: str, node_index: int) -> bool:
        """Whether a tensor that a node gives stays inside; all that a single node gives leaves it."""
        return not isinstance(self.of, int) and node_index in self.nodes and root != self.root


class Nesting:
    """The blocks of one model and what is in them."""

    def __init__(self, builder: RowBuilder) -> None:
        self._builder = builder
        self._index, self._tree, self._view = builder.index, builder.tree, builder.view
        produced = {root: self._view.producer(root) for root in builder.inserted}
        self._inserted = {root: node_index for root, node_index in produced.items() if node_index is not None}
        """root after which there are insertions -> the node that gives it"""
        parts = (each for each in builder.standing if each.is_part and each.tensor in self._index.producer)
        self._standing = [unit for unit in (_standing_unit(each, self._view) for each in parts) if unit.nodes]
        self._rows: dict[str, Row] = {}

    @cached_property
    def units(self) -> list[_Unit]:
        """Outermost blocks, and nodes in no block that give a map, in the order of the graph."""
        tree, view = self._tree, self._view
        placed = [(block.nodes & view.place.keys(), block) for block in tree.blocks]  # nodes of a cycle have no place
        last = {max(nodes, key=view.place.__getitem__): block for nodes, block in placed if nodes}
        units = []
        alone = {max(each.nodes, key=self._rank): each for each in self._standing if self._around(each) is None}
        covered = frozenset[int]().union(*(each.nodes for each in alone.values()))
        for node_index in view.order:
            if (unit := alone.get(node_index)) is not None:
                units.append(unit)
            if (block := last.get(node_index)) is not None:
                if not block.nodes <= covered:
                    units.append(_Unit(tree.selector(block), block.root, block.nodes, block))
            elif node_index in covered:
                continue
            elif tree.holding(node_index) is None and (root := self._map(node_index)) is not None:
                units.append(self._node(root, node_index))
        return units

    def _around(self, unit: _Unit) -> RecognisedBlock | None:
        """The outermost block that a unit is in."""
        first = next(iter(unit.nodes))
        block = self._tree.holding(first)
        return block if block is not None and unit.nodes <= block.nodes and not _covers(unit, block.nodes) else None

    def _rank(self, node_index: int) -> int:
        return self._view.place.get(node_index, -1)

    def _map(self, node_index: int) -> str | None:
        """The map that a node gives."""
        root = next(iter(self._view.outputs(node_index)), None)
        if root is None or not self._tree.is_map(root):
            return None
        finder, tensor = self._builder.finder, self._builder.view.outlet(root)
        return root if finder.is_map(tensor) or finder.layouts.foreign(tensor) is not None else None

    def _node(self, root: str, node_index: int) -> _Unit:
        return _Unit(self._builder.node_name(node_index, root), root, frozenset({node_index}), node_index)

    # ------------------------------------------------------------------ a table

    def rows(self, depth: int | None) -> Iterator[Row]:
        """Each unit, followed by what is shown in it."""
        pending = [(unit, 1) for unit in reversed(self.units)]
        while pending:
            unit, number = pending.pop()
            yield self._row(unit, number)
            shown = self._contents(unit, every=depth is None or number < depth)
            pending += [(inner, number + 1) for inner in reversed(shown)]

    def hidden(self, depth: int) -> int:
        """How many parts of blocks are not among the rows of a depth."""
        count, pending = 0, [(unit, 1) for unit in self.units]
        while pending:
            unit, number = pending.pop()
            shown = self._contents(unit, every=number < depth)
            parts = self._parts(unit)
            names = {each.name for each in shown}
            count += sum(part.name not in names and _size(part) for part in parts)
            pending += [(part, number + 1) for part in parts if part.name in names]
        return count

    def edges(self) -> list[Edge]:
        """How the outermost units are wired."""
        return self._wired(self.units, None)

    # ------------------------------------------------------------------ a picture

    def level(self, depth: int | None) -> Level:
        """The outermost level; units between which maps part and meet again stand there as one."""
        return self._level(self._folded, 1, depth, None)

    def _level(self, units: Sequence[_Unit], number: int, depth: int | None, whole: _Unit | None) -> Level:
        inside = {
            unit.name: self._level(shown, number + 1, depth, unit)
            for unit in units
            if (shown := self._contents(unit, every=depth is None or number < depth))
        }
        return Level(
            rows=tuple(self._row(unit, number) for unit in units),
            edges=tuple(self._wired(units, whole)),
            insertions=tuple(self._between(units, whole)),
            inside=inside,
            members={unit.name: tuple(each.name for each in unit.of) for unit in units if isinstance(unit.of, tuple)},
        )

    def _between(self, units: Sequence[_Unit], whole: _Unit | None) -> Iterator[str]:
        """The insertions that are in the whole and in none of the units."""
        for root, ids in self._builder.inserted.items():
            node_index = self._inserted.get(root, -1)
            inner = any(unit.holds(root, node_index) for unit in units)
            if not inner and (whole is None or whole.holds(root, node_index)):
                yield from ids

    def _wired(self, units: Iterable[_Unit], whole: _Unit | None) -> list[Edge]:
        rows = [(unit.nodes, unit.name) for unit in units]
        every = self._builder.insertions.values()
        outputs = {insertion.output_tensor: insertion for insertion in every if insertion.replaced is None}
        around = (whole.nodes, whole.root) if whole else None
        return Wiring(self._index, self._view, rows, outputs, around).edges()

    @cached_property
    def _folded(self) -> list[_Unit]:
        units = self.units
        known = {unit.name: unit for unit in units}
        simple = {unit.name for unit in units if _size(unit) <= 1 + len(self._parts(unit))}
        rows = [self._row(unit, 1) for unit in units]
        others = frozenset[int]().union(*(unit.nodes for unit in units))
        tree = self._builder.finder.tree
        sizes = Counter(path for node_index in others for path in enclosing(tree.of_node[node_index]))
        exits: dict[str, _Unit] = {}
        taken: set[str] = set()
        for names in folds(rows, self.edges(), simple):
            members = tuple(known[name] for name in names)
            nodes = frozenset[int]().union(*(unit.nodes for unit in members))
            path = together(tree, nodes, sizes)
            name = path or f"{self._row(members[0], 1).title} and {len(names) - 1} more"
            exits[names[-1]] = _Unit(name, members[-1].root, nodes | self._within(nodes, others), members)
            taken.update(names[:-1])
        return [exits.get(unit.name, unit) for unit in units if unit.name not in taken]

    def _within(self, nodes: frozenset[int], others: frozenset[int]) -> set[int]:
        """What lies between nodes and is in no unit: reshapes to five dimensions and back, say."""
        view, found = self._view, set[int]()
        places = [view.place[node_index] for node_index in nodes if node_index in view.place]
        for node_index in view.order[min(places) : max(places)]:
            if node_index not in others:
                before = {view.producer(root) for root in view.inputs(node_index)}
                if not before.isdisjoint(nodes) or not before.isdisjoint(found):
                    found.add(node_index)
        return found

    # ------------------------------------------------------------------ units

    def _row(self, unit: _Unit, number: int) -> Row:
        row = self._rows.get(unit.name)
        if row is None:
            if isinstance(unit.of, int):
                row = self._builder.of_node(unit.of, unit.root, number)
            elif isinstance(unit.of, tuple):
                row = replace(self._row(unit.of[-1], number), name=unit.name, standing=None)
            elif isinstance(unit.of, StandingBlock):
                row = self._builder.of_standing(unit.of, unit.name, number)
            else:
                row = self._builder.of_block(unit.of, unit.name, unit.part, number)
            self._rows[unit.name] = row
        return row if row.depth == number else replace(row, depth=number)

    def _parts(self, unit: _Unit) -> tuple[_Unit, ...]:
        if isinstance(unit.of, tuple):
            return unit.of
        if isinstance(unit.of, (int, StandingBlock)):
            return ()
        parts = (_Unit(f"{unit.name}.{step}", each.root, each.nodes, each, step) for step, each in unit.of.parts)
        if not self._standing:
            return tuple(parts)
        return tuple(part for part in parts if not any(_covers(each, part.nodes) for each in self._standing))

    def _contents(self, unit: _Unit, *, every: bool) -> list[_Unit]:
        """What is shown in a unit: every part, or those that have to do with what is inserted in it or stands there."""
        if not every and not self._inserted and not self._standing:
            return []
        parts, standing = self._parts(unit), self._standing_in(unit)
        inner = {root: node_index for root, node_index in self._inserted.items() if unit.holds(root, node_index)}
        own = [each for each in standing if not any(each.nodes <= part.nodes for part in parts)]
        shown = [part for part in parts if every or any(node_index in part.nodes for node_index in inner.values())]
        shown += [part for part in parts if part not in shown and any(each.nodes <= part.nodes for each in standing)]
        for root, node_index in inner.items():
            if not any(node_index in part.nodes for part in (*parts, *own)):
                shown.append(self._node(root, node_index))
        shown += own
        return sorted(shown, key=self._place) if len(shown) > len(parts) or standing or not every else shown

    def _standing_in(self, unit: _Unit) -> list[_Unit]:
        """The blocks that stand in a unit; not what it is itself."""
        if isinstance(unit.of, (int, StandingBlock)):
            return []
        return [each for each in self._standing if each.nodes <= unit.nodes]

    def _place(self, unit: _Unit) -> int:
        return max(self._view.place.get(node_index, -1) for node_index in unit.nodes)


def _size(unit: _Unit) -> int:
    """How many blocks a unit is: itself and all in it."""
    return 1 if isinstance(unit.of, (int, tuple, StandingBlock)) else len(list(unit.of.everything()))


def _covers(standing: _Unit, nodes: frozenset[int]) -> bool:
    """Whether a block stands for all of another one: what was rewritten or found still is what it is a part of."""
    assert isinstance(standing.of, StandingBlock)
    return nodes <= standing.nodes if standing.of.origin == IN_PLACE else nodes < standing.nodes


def _standing_unit(standing: StandingBlock, view: View) -> _Unit:
    name = standing.id if standing.origin == FOUND else f"tensor:{standing.tensor}"
    return _Unit(name, view.root(standing.tensor), standing.members & view.place.keys(), standing)
