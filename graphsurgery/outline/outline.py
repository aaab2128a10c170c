"""Outline: a model as a detector's author thinks of it: its blocks in order, and how they are wired."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

from ..errors import RequestError, SiteError
from ..modelfile.model import ModelFile
from ..selection.advice import Advice, Refused
from ..selection.resolver import Place
from ..selection.sites import SiteFinder
from .edges import Edge, Wiring
from .picture import draw, page
from .rows import OUTPUT, Row

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource
    from ..modelfile.record import Insertion
    from ..recognition import RecognisedBlock


def outline(model: ModelSource) -> Outline:
    """The blocks of a model in order, the places to insert after them, and how they are wired.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.

    Returns
    -------
    Outline
        Its :meth:`~Outline.rows`, and a picture: in a notebook it is shown as one.

    Raises
    ------
    ModelError
        If the model cannot be read.

    Examples
    --------
    >>> blocks = gsx.outline("yolov8n.onnx")                           # doctest: +SKIP
    >>> [row.name for row in blocks.rows() if row.is_advisable]        # doctest: +SKIP
    >>> Path("yolov8n.svg").write_text(blocks.as_svg())                # doctest: +SKIP
    """
    return Outline(SiteFinder(ModelFile.load(model)))


class Outline:
    """The rows of one model, and their picture."""

    def __init__(self, finder: SiteFinder) -> None:
        self._finder = finder
        self._index = finder.index
        self._tree = finder.blocks
        self._view = finder.blocks.view

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
        """Outermost blocks and single nodes in the order of the graph, each followed by its parts, down to a depth."""
        return [
            row
            for unit in self._units
            for row in (self._of_block(unit, depth) if not isinstance(unit, int) else [self._of_node(unit)])
        ]

    def hidden(self, depth: int) -> int:
        """How many parts lie deeper."""
        return sum(_below(block, depth) for block in self._tree.blocks)

    def as_svg(self) -> str:
        """The picture of the blocks and how they are wired, as SVG. RequestError where there is nothing to draw."""
        if self.is_bare:
            raise RequestError(f"{self.name} cannot be drawn: there is neither a block nor a map of the image in it")
        return draw(self.name, self.rows(), self.edges(), self.insertions())

    def as_html(self) -> str:
        """The same as a page; pointing at a box shows its tensor, its consumers and whether a block does well there."""
        return page(self.name, self.as_svg())

    def __repr__(self) -> str:
        rows = self.rows()
        return f"<Outline of {self.name}: {len(rows)} places, {sum(row.is_advisable for row in rows)} advisable>"

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows()))

    def _repr_html_(self) -> str | None:
        return None if self.is_bare else self.as_svg()

    # ------------------------------------------------------------------ rows

    @cached_property
    def _units(self) -> list[RecognisedBlock | int]:
        """Outermost blocks, and nodes in no block that give a map, in the order of the graph."""
        tree, view = self._tree, self._view
        placed = [(block.nodes & view.place.keys(), block) for block in tree.blocks]  # nodes of a cycle have no place
        last = {max(nodes, key=view.place.__getitem__): block for nodes, block in placed if nodes}
        units: list[RecognisedBlock | int] = []
        for node_index in view.order:
            if node_index in last:
                units.append(last[node_index])
            elif tree.holding(node_index) is None and self._gives_a_map(node_index):
                units.append(node_index)
        return units

    def _gives_a_map(self, node_index: int) -> bool:
        outputs = self._view.outputs(node_index)
        return bool(outputs) and self._tree.is_map(outputs[0]) and self._finder.is_map(outputs[0])

    def _of_block(self, outermost: RecognisedBlock, depth: int | None) -> Iterator[Row]:
        pending: list[tuple[RecognisedBlock, str, str | None, int]] = [
            (outermost, self._tree.selector(outermost), None, 1)
        ]
        while pending:
            block, name, part, level = pending.pop()
            number = int(self._tree.selector(block).rpartition("[")[2][:-1])
            row = Row(name, part, level, block.type, number, block.path, block.role, block.output)
            yield self._completed(row, block.root, block)
            if depth is None or level < depth:
                pending += [(inner, f"{name}.{step}", step, level + 1) for step, inner in reversed(block.parts)]

    def _of_node(self, node_index: int) -> Row:
        root = self._view.outputs(node_index)[0]
        kind, number = self._index.nodes[node_index].op_type, self._numbers[node_index]
        path = self._finder.tree.of_node[node_index] or None
        role, tensor = self._tree.role_of(node_index), self._view.outlet(root)
        return self._completed(Row(self._node_name(node_index), None, 1, kind, number, path, role, tensor), root, None)

    def _node_name(self, node_index: int) -> str:
        return f"op:{self._index.nodes[node_index].op_type}[{self._numbers[node_index]}]"

    def _completed(self, row: Row, root: str, block: RecognisedBlock | None) -> Row:
        """A row with what is known of its tensor."""
        finder, tensor = self._finder, row.tensor
        module = finder.tree.modules.get(row.path) if row.path else None
        shape = finder.shapes.lookup(tensor)[1]
        try:
            site = finder.site(Place(tensor, row.path if module else None, row.type))
        except SiteError as error:
            site = None
            unknown = self._tree.is_map(root) and shape is None
            objection: Advice | Refused | None = Refused("shape not known" if unknown else "not a map", error)
        else:
            objection = finder.adviser.advice(tensor)
        return replace(
            row,
            path=module.display if module else row.path,
            roles=self._roles.get(tensor, ()),
            shape=site.shape if site else shape,
            dtype=site.dtype if site else None,
            stride=self._tree.stride(root) or (site.stride if site else None),
            readers=tuple(self._readers(root, block)),
            insertions=tuple(self._inserted.get(root, ())),
            site=site,
            objection=objection,
        )

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """Node index -> which node of its operator it is, in the order of the file."""
        next_of: defaultdict[str, Iterator[int]] = defaultdict(count)
        return {node_index: next(next_of[node.op_type]) for node_index, node in enumerate(self._index.nodes)}

    @cached_property
    def _roles(self) -> dict[str, tuple[str, ...]]:
        table: dict[str, tuple[str, ...]] = {}
        for name in self._tree.ROLES:
            for tensor in self._tree.role(name):
                table[tensor] = (*table.get(tensor, ()), name)
        return table

    @cached_property
    def _insertions(self) -> dict[str, Insertion]:
        """The output of an inserted block -> the insertion."""
        return {insertion.output_tensor: insertion for insertion in self._index.model.insertions()}

    @cached_property
    def _inserted(self) -> dict[str, list[str]]:
        """Root -> ids of the insertions after it, in the order in which they were made."""
        table: dict[str, list[str]] = {}
        for insertion in self._insertions.values():
            table.setdefault(self._view.root(insertion.site.tensor), []).append(insertion.id)
        return table

    # ------------------------------------------------------------------ consumers

    def _readers(self, root: str, block: RecognisedBlock | None) -> Iterator[str]:
        yield from dict.fromkeys(self._reader(node_index, block) for node_index in self._view.consumers(root))
        if self._view.is_output(root):
            yield OUTPUT

    def _reader(self, node_index: int, block: RecognisedBlock | None) -> str:
        """The largest block that holds a consumer and does not hold the block that it consumes."""
        around = self._tree.holding(node_index)
        while around is not None and block is not None and block.nodes < around.nodes:
            around = next((part for _, part in around.parts if node_index in part.nodes), None)
        if around is None or around is block:
            return self._index.label(node_index)
        return around.path or self._tree.selector(around)

    # ------------------------------------------------------------------ wiring

    def edges(self) -> list[Edge]:
        """How the outermost rows are wired, in the order of their targets; rows by name, what lies between left out."""
        rows = [
            ({unit}, self._node_name(unit)) if isinstance(unit, int) else (unit.nodes, self._tree.selector(unit))
            for unit in self._units
        ]
        return Wiring(self._index, self._view, rows, self._insertions).edges()


def _below(block: RecognisedBlock, depth: int) -> int:
    parts = [part for _, part in block.parts]
    return (len(parts) if depth < 2 else 0) + sum(_below(part, depth - 1) for part in parts)
