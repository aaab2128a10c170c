"""RowBuilder: makes the rows of an outline, of blocks and of single nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from functools import cached_property, partial
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from ..feature_map import float_dtype
from ..selection.advice import Advice, Refused
from ..selection.resolver import Place
from .rows import OUTPUT, Row
from .standing import StandingBlock, of_insertion

if TYPE_CHECKING:
    from ..modelfile.record import Insertion
    from ..recognition import RecognisedBlock
    from ..selection.sites import SiteFinder


class _What(NamedTuple):
    """What a row is of: its fields of these names, the path as module trees spell it."""

    name: str
    part: str | None
    depth: int
    type: str
    number: int
    path: str | None
    role: str | None


class RowBuilder:
    """Makes the rows of one model."""

    def __init__(self, finder: SiteFinder, found: Sequence[StandingBlock] = ()) -> None:
        self.finder = finder
        self.index, self.tree, self.view = finder.index, finder.blocks, finder.blocks.view
        self._found = found

    def of_block(self, block: RecognisedBlock, name: str, part: str | None, depth: int) -> Row:
        """The row of a block. ``name``: what selects it; ``part``: its name in the block that it is a part of."""
        number = int(self.tree.selector(block).rpartition("[")[2][:-1])
        what = _What(name, part, depth, block.type, number, block.path, block.role)
        return self._row(what, block.output, block.root, block.nodes, whole=True)

    def of_node(self, node_index: int, root: str, depth: int) -> Row:
        """The row of a node, and of that output of it which is ``root``."""
        kind, number = self.index.nodes[node_index].op_type, self._numbers[node_index]
        path = self.finder.tree.of_node[node_index] or None
        what = _What(self.node_name(node_index, root), None, depth, kind, number, path, self.tree.role_of(node_index))
        return self._row(what, self.view.outlet(root), root, {node_index})

    def of_standing(self, standing: StandingBlock, name: str, depth: int) -> Row:
        """The row of a block that stands in the place of a part, or is one."""
        last = self.index.producer[standing.tensor]
        path = None if standing.place.startswith("tensor:") else standing.place
        what = _What(name, None, depth, standing.module or "attention", 0, path, self.tree.role_of(last))
        nodes = standing.members & self.view.place.keys()
        root = self.view.root(standing.tensor)
        return replace(self._row(what, self.view.outlet(root), root, nodes, whole=True), standing=standing)

    def node_name(self, node_index: int, root: str) -> str:
        """What selects an output of a node: its operator, ``op:Mul[7]``; ``tensor:NAME`` where others leave it, too."""
        outputs = self.view.outputs(node_index)
        others = [name for name in outputs if name != root]
        if root != outputs[0] or any(name in self.index.consumers or name in self.index.outputs for name in others):
            return f"tensor:{root}"
        return f"op:{self.index.nodes[node_index].op_type}[{self._numbers[node_index]}]"

    def _row(self, what: _What, tensor: str, root: str, nodes: Set[int], *, whole: bool = False) -> Row:
        """A row, with what is known of its tensor. ``whole``: whether the nodes are a block."""
        finder = self.finder
        module = finder.tree.modules.get(what.path) if what.path else None
        kind, shape = finder.shapes.lookup(tensor)
        stride = self.tree.stride(root)
        place = Place(tensor, what.path if module else None, what.type)
        if (error := finder.refusal(place)) is not None:
            unknown = self.tree.is_map(root) and shape is None
            short = finder.layouts.foreign(tensor) or ("shape not known" if unknown else "not a map")
            if finder.layouts.moved(tensor) and len(shape or ()) == 4:
                short = "layout not known"
            objection: Advice | Refused | None = Refused(short, error)
        else:
            objection = finder.adviser.advice(tensor)
            stride = stride or finder.stride(tensor, shape or ())
        return Row(
            name=what.name,
            part=what.part,
            depth=what.depth,
            type=what.type,
            number=what.number,
            path=module.display if module else what.path,
            role=what.role,
            tensor=tensor,
            roles=self._roles.get(tensor, ()),
            shape=shape,
            dtype=None if error else float_dtype(kind),
            stride=stride,
            readers=tuple(self._readers(root, nodes if whole else frozenset())),
            insertions=tuple(self.inserted.get(root, ())),
            objection=objection,
            find_site=None if error else partial(finder.site_at, place),
            find_macs=partial(finder.work.macs, nodes),
        )

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """Node index -> which node of its operator it is, in the order of the file."""
        next_of: defaultdict[str, Iterator[int]] = defaultdict(count)
        return {node_index: next(next_of[node.op_type]) for node_index, node in enumerate(self.index.nodes)}

    @cached_property
    def _roles(self) -> dict[str, tuple[str, ...]]:
        table: dict[str, tuple[str, ...]] = {}
        for name in self.tree.ROLES:
            for tensor in self.tree.role(name):
                table[tensor] = (*table.get(tensor, ()), name)
        return table

    # ------------------------------------------------------------------ insertions

    @cached_property
    def insertions(self) -> dict[str, Insertion]:
        """The blocks that stand in the model, by id."""
        return {insertion.id: insertion for insertion in self.index.insertions}

    @cached_property
    def standing(self) -> list[StandingBlock]:
        """The same, and those that were found, in the order of the nodes."""
        every = [*(of_insertion(each, self.index) for each in self.index.model.insertions()), *self._found]
        return sorted(every, key=lambda each: min(each.members, default=-1))

    @cached_property
    def inserted(self) -> dict[str, list[str]]:
        """Root -> ids of the insertions after it, in the order in which they were made; without those in the place of
        something, which have rows of their own.
        """
        table: dict[str, list[str]] = {}
        for insertion in self.insertions.values():
            if insertion.replaced is not None:
                continue
            table.setdefault(self.view.root(insertion.site.tensor), []).append(insertion.id)
        return table

    # ------------------------------------------------------------------ consumers

    def _readers(self, root: str, nodes: Set[int]) -> Iterator[str]:
        yield from dict.fromkeys(self._reader(node_index, nodes) for node_index in self.view.consumers(root))
        if self.view.is_output(root):
            yield OUTPUT

    @cached_property
    def _standing_at(self) -> dict[int, str]:
        """Node -> id of the block that has a row of its own and that it is in."""
        return {node_index: each.id for each in self.standing if each.is_part for node_index in each.members}

    def _reader(self, node_index: int, nodes: Set[int]) -> str:
        """The largest block that holds a consumer and does not hold the block, of these nodes, that it consumes."""
        around = self.tree.holding(node_index)
        while around is not None and nodes and nodes < around.nodes:
            around = next((part for _, part in around.parts if node_index in part.nodes), None)
        if around is None or around.nodes == nodes:
            return self._standing_at.get(node_index) or self.index.label(node_index)
        return around.path or self.tree.selector(around)
