"""Outline: a model as a detector's author thinks of it: its blocks in order, and how they are wired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import SiteError
from ..feature_map import Dimension
from ..recognition.advice import Objection, examine
from ..selection.resolver import Place
from .edges import Edge, Wiring

if TYPE_CHECKING:
    from ..modelfile.record import Insertion
    from ..recognition import BlockTree, RecognisedBlock
    from ..recognition.graph_view import View
    from ..selection.sites import Site, SiteFinder

OUTPUT = "(model output)"
"""how the list of readers calls an output of the model"""


@dataclass(frozen=True)
class Row:
    """One block, part of a block, or single node, and the tensor that leaves it."""

    name: str
    """the selector that names it: ``C2f[3]``, ``C2f[3].m.0``, ``op:Mul[7]``"""
    part: str | None
    """its name in the block that it is a part of; None for an outermost block"""
    depth: int
    """1 for outermost blocks, 2 for their parts ..."""
    type: str
    number: int
    """which one of its type it is, in the order of the graph, parts counted"""
    path: str | None
    """module path as the model spells it; None where it tells none: the block is recovered from structure"""
    role: str | None
    """backbone, neck or head"""
    roles: tuple[str, ...]
    """p3, after-sppf, neck-outputs and so on, where its tensor is one"""
    tensor: str
    shape: tuple[Dimension, ...] | None
    dtype: str | None
    stride: int | None
    readers: tuple[str, ...]
    """what reads the tensor: blocks by path or selector, single nodes by name"""
    insertions: tuple[str, ...]
    """ids of the blocks that stand behind it already"""
    site: Site | None
    """the place behind it; None where no block can be put"""
    objection: Objection | None
    """what speaks against that place"""

    @property
    def is_advisable(self) -> bool:
        """Whether a block does well behind it."""
        return self.site is not None and self.objection is None

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys; the site's own, then those of the row."""
        site = self.site.to_json() if self.site else {}
        return {
            "tensor": self.tensor,
            "shape": None if self.shape is None else list(self.shape),
            "dtype": self.dtype,
            "path": self.path,
            "type": self.type,
            **site,
            "stride": self.stride,
            "selector": self.name,
            "index": self.number,
            "depth": self.depth,
            "role": self.role,
            "roles": list(self.roles),
            "readers": list(self.readers),
            "insertions": list(self.insertions),
            "advisable": self.is_advisable,
            "reason": self.objection.sentence if self.objection else None,
        }


class Outline:
    """The rows of one model."""

    def __init__(self, finder: SiteFinder) -> None:
        self._finder = finder
        self._index = finder.index

    @cached_property
    def _tree(self) -> BlockTree:
        return self._finder.blocks

    @cached_property
    def _view(self) -> View:
        return self._tree.view

    @property
    def is_empty(self) -> bool:
        """Whether no block was recognised."""
        return not self._tree.blocks

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing to show: no block, and no node that gives a map."""
        return not self._units

    @property
    def name(self) -> str:
        """How messages call the model."""
        return self._index.model.name

    def insertions(self) -> dict[str, Insertion]:
        """The blocks that stand in the model, by id."""
        return {insertion.id: insertion for insertion in self._insertions.values()}

    def rows(self, depth: int | None = 1) -> list[Row]:
        """Outermost blocks and single nodes in the order of the graph, each with its parts behind it, to a depth."""
        return [
            row
            for unit in self._units
            for row in (self._of_block(unit, depth) if not isinstance(unit, int) else [self._of_node(unit)])
        ]

    def hidden(self, depth: int) -> int:
        """How many parts lie deeper."""
        return sum(_below(block, depth) for block in self._tree.blocks)

    # ------------------------------------------------------------------ rows

    @cached_property
    def _units(self) -> list[RecognisedBlock | int]:
        """Outermost blocks, and nodes in no block that give a map, in the order of the graph."""
        tree, view = self._tree, self._view
        last = {max(block.nodes, key=view.place.__getitem__): block for block in tree.blocks if block.nodes}
        units: list[RecognisedBlock | int] = []
        for position in view.order:
            if position in last:
                units.append(last[position])
            elif tree.holding(position) is None and self._gives_a_map(position):
                units.append(position)
        return units

    def _gives_a_map(self, position: int) -> bool:
        outputs = self._view.outputs(position)
        return bool(outputs) and self._tree.is_map(outputs[0]) and self._finder.is_map(outputs[0])

    def _of_block(self, outermost: RecognisedBlock, depth: int | None) -> Iterator[Row]:
        pending: list[tuple[RecognisedBlock, str, str | None, int]] = [
            (outermost, self._tree.selector(outermost), None, 1)
        ]
        while pending:
            block, name, part, level = pending.pop()
            path = block.path
            number = int(self._tree.selector(block).rpartition("[")[2][:-1])
            yield self._row(block, name, part, level, block.type, number, path, block.role, block.root, block.output)
            if depth is None or level < depth:
                pending += [(inner, f"{name}.{step}", step, level + 1) for step, inner in reversed(block.parts)]

    def _of_node(self, position: int) -> Row:
        root = self._view.outputs(position)[0]
        kind = self._index.nodes[position].op_type
        number = self._numbers[position]
        path = self._finder.tree.of_node[position] or None
        role, tensor = self._tree.role_of(position), self._view.outlet(root)
        return self._row(None, f"op:{kind}[{number}]", None, 1, kind, number, path, role, root, tensor)

    def _row(
        self,
        block: RecognisedBlock | None,
        name: str,
        part: str | None,
        depth: int,
        kind: str,
        number: int,
        path: str | None,
        role: str | None,
        root: str,
        tensor: str,
    ) -> Row:
        finder = self._finder
        module = finder.tree.modules.get(path) if path else None
        site: Site | None = None
        try:
            site = finder.site(Place(tensor, path if module else None, kind))
        except SiteError as error:
            unknown = self._tree.is_map(root) and finder.shapes.lookup(tensor)[1] is None
            reason: Objection | None = Objection("shape not known" if unknown else "not a map", str(error))
        else:
            reason = examine(self._tree, tensor)
        shape = finder.shapes.lookup(tensor)[1]
        return Row(
            name=name,
            part=part,
            depth=depth,
            type=kind,
            number=number,
            path=module.display if module else path,
            role=role,
            roles=self._roles.get(tensor, ()),
            tensor=tensor,
            shape=site.shape if site else shape,
            dtype=site.dtype if site else None,
            stride=self._tree.stride(root) or (site.stride if site else None),
            readers=tuple(self._readers(root, block)),
            insertions=tuple(self._behind.get(root, ())),
            site=site,
            objection=reason,
        )

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """Position -> which node of its operator it is, in the order of the file."""
        count: dict[str, int] = {}
        numbers = {}
        for position, node in enumerate(self._index.nodes):
            numbers[position] = count.get(node.op_type, 0)
            count[node.op_type] = numbers[position] + 1
        return numbers

    @cached_property
    def _roles(self) -> dict[str, tuple[str, ...]]:
        table: dict[str, tuple[str, ...]] = {}
        for name in self._tree.ROLES:
            for tensor in self._tree.role(name):
                table[tensor] = (*table.get(tensor, ()), name)
        return table

    @cached_property
    def _insertions(self) -> dict[str, Insertion]:
        """What an inserted block gives -> the insertion."""
        return {insertion.output_tensor: insertion for insertion in self._index.model.insertions()}

    @cached_property
    def _behind(self) -> dict[str, list[str]]:
        """Root -> ids of the insertions behind it, in the order in which they were made."""
        table: dict[str, list[str]] = {}
        for insertion in self._insertions.values():
            table.setdefault(self._view.root(insertion.site.tensor), []).append(insertion.id)
        return table

    # ------------------------------------------------------------------ who reads what

    def _readers(self, root: str, block: RecognisedBlock | None) -> Iterator[str]:
        names = dict.fromkeys(self._reader(position, block) for position in self._view.consumers(root))
        yield from names
        if self._view.is_output(root):
            yield OUTPUT

    def _reader(self, position: int, block: RecognisedBlock | None) -> str:
        """The largest block that a reader is in and the block that it reads from is not."""
        around = self._tree.holding(position)
        while around is not None and block is not None and block.nodes < around.nodes:
            around = next((part for _, part in around.parts if position in part.nodes), None)
        if around is None or around is block:
            return self._index.label(position)
        return around.path or self._tree.selector(around)

    # ------------------------------------------------------------------ wiring

    def edges(self) -> list[Edge]:
        """How the outermost rows are wired, in the order of their targets; rows by name, what lies between left out."""
        rows = [
            ({unit}, f"op:{self._index.nodes[unit].op_type}[{self._numbers[unit]}]")
            if isinstance(unit, int)
            else (unit.nodes, self._tree.selector(unit))
            for unit in self._units
        ]
        return Wiring(self._index, self._view, rows, self._insertions).edges()


def _below(block: RecognisedBlock, depth: int) -> int:
    parts = [part for _, part in block.parts]
    return (len(parts) if depth < 2 else 0) + sum(_below(part, depth - 1) for part in parts)
