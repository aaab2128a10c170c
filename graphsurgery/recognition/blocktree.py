"""BlockTree: the blocks of one model, outermost first, with their roles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property

from ..entry_points import loaded, tell
from ..graph.index import GraphIndex
from ..graph.layouts import Layouts
from ..graph.module_paths import ModuleTree, common_path, from_weights
from ..graph.origins import Origin
from ..graph.shapes import ShapeTable
from .anatomy import ROLES
from .block import RecognisedBlock
from .functions import expand
from .graph_view import View
from .matcher import Matcher
from .networks import Networks
from .pattern import HeadPattern, Pattern
from .stage_end import Reading
from .strides import Strides

_GROUP = "graphsurgery.detectors"
"""entry points: modules with Pattern and HeadPattern values in them"""


def recognise(
    index: GraphIndex,
    shapes: ShapeTable | None = None,
    tree: ModuleTree | None = None,
    layouts: Layouts | None = None,
) -> BlockTree:
    """The blocks of a model. Names and metadata (``tree``) only label what was found by structure."""
    return BlockTree(index, shapes, tree, layouts)


class BlockTree:
    """The recognised blocks of one model."""

    ROLES = ROLES

    def __init__(
        self,
        index: GraphIndex,
        shapes: ShapeTable | None = None,
        tree: ModuleTree | None = None,
        layouts: Layouts | None = None,
    ) -> None:
        self._expanded = expand(index)
        self.view = self._expanded.file if self._expanded else View(index, layouts)
        """the model as it is in the file"""
        self._seen = self._expanded.inside if self._expanded else self.view
        """the same with its calls of local functions written out, and with what blocks have replaced"""
        if self._expanded:
            shapes = ShapeTable(self._seen.index, shapes.given if shapes is not None else {})
        self._strides = Strides(self._seen, shapes)
        self._tree = tree
        catalogues = loaded(_GROUP)
        tell(map(str, catalogues.broken))
        outermost = Matcher(self._seen, self._strides, catalogues.values(Pattern)).outermost()
        self._networks = Networks(self._seen, self._strides, outermost, catalogues.values(HeadPattern))
        found = self._networks.blocks
        if self._expanded is not None:
            found = [block for inside in found for block in self._expanded.in_the_file(inside)]
        self.blocks: tuple[RecognisedBlock, ...] = tuple(self._labelled(block) for block in found)
        """outermost blocks, in the order of the graph"""

    def written_out(self) -> BlockTree | None:
        """The blocks of the model with its calls of local functions written out, those within one call included; None
        for a model without calls.
        """
        if self._expanded is None:
            return None
        inside = copy(self)
        for name in [name for name in inside.__dict__ if isinstance(getattr(BlockTree, name, None), cached_property)]:
            del inside.__dict__[name]
        inside._expanded, inside.view, inside._tree = None, self._seen, ModuleTree(self._seen.index)
        inside.blocks = tuple(map(inside._labelled, self._networks.blocks))
        return inside

    @property
    def origins(self) -> Sequence[Origin]:
        """Where in the file the nodes of :meth:`written_out` stand."""
        return self._expanded.origins if self._expanded else ()

    def within_call(self, block: RecognisedBlock, inside: BlockTree) -> RecognisedBlock:
        """What a block of this tree is in :meth:`written_out`, where it has its parts within one call."""
        assert self._expanded is not None
        same = (each for each in inside.of_type(block.type) if self._expanded.named(each.root) == block.root)
        return next(same)

    def everything(self) -> Iterator[RecognisedBlock]:
        """All blocks, those inside of others included, in the order of their outputs."""
        return iter(self._everything)

    @cached_property
    def _everything(self) -> list[RecognisedBlock]:
        place = self.view.place
        found = [inner for block in self.blocks for inner in block.everything()]
        # parts stay before their whole
        return sorted(found, key=lambda block: max(place.get(p, -1) for p in block.nodes))

    @cached_property
    def _by_type(self) -> dict[str, list[RecognisedBlock]]:
        table: dict[str, list[RecognisedBlock]] = {}
        for block in self._everything:
            for name in (block.type, *block.aliases):
                table.setdefault(name, []).append(block)
        return table

    @property
    def types(self) -> list[str]:
        """The names that of_type() knows in this model."""
        return list(self._by_type)

    def of_type(self, name: str) -> list[RecognisedBlock]:
        """The blocks of a type or alias, those inside of others included, in the order of their outputs."""
        return self._by_type.get(name, [])

    def role(self, name: str) -> list[str]:
        """The tensors of a role, in order; [] if the model has none. KeyError for a role that does not exist."""
        tensors = self._networks.role(name)
        if self._expanded is None:
            return tensors
        roots = map(self._expanded.named, tensors)
        return [self.view.outlet(root) for root in roots if root is not None]  # not what lies within a call

    def readings(self, name: str) -> list[Reading]:
        """The maps of which one has a role, where structure does not tell which, and what each would be."""
        if self._expanded is None:
            return self._networks.readings(name)
        if self._expanded.has_calls:
            return []
        roots = ((each, self._expanded.named(each.root)) for each in self._networks.readings(name))
        return [replace(each, root=root) for each, root in roots if root is not None]

    def images(self, root: str) -> list[str]:
        """The inputs of the model that a tensor is computed from, as images or maps of images."""
        view, found, pending = self._seen, set[str](), [self._seen.root(root)]
        seen = set(pending)
        while pending:
            name = pending.pop()
            producer = view.producer(name)
            if producer is None:
                found.add(name)
                continue
            before = set(view.inputs(producer)) - seen if producer in view.active else set[str]()
            seen |= before
            pending += before
        return [name for name in view.index.free_inputs if name in found and self._strides.is_in(name)]

    def role_of(self, node_index: int) -> str | None:
        """Whether a node is in the backbone, the neck or the head; None if it works on sizes or constants only."""
        if self._expanded is None:
            return self._networks.of_node(node_index)
        inside = self._expanded.within(node_index)
        return next((role for p in sorted(inside, reverse=True) if (role := self._networks.of_node(p))), None)

    def is_map(self, root: str) -> bool:
        """Whether a tensor is a map of the image, with a place of the image for each of its positions."""
        return self._strides.is_in(self._seen.root(root))

    def stride(self, root: str) -> int | None:
        """Image height over the height of a map, the same in width; None where it is neither."""
        return self._strides.stride(self._seen.root(root))

    @cached_property
    def _owner(self) -> dict[int, RecognisedBlock]:
        return {node_index: block for block in self.blocks for node_index in block.nodes}

    def holding(self, node_index: int) -> RecognisedBlock | None:
        """The outermost block that a node is in."""
        return self._owner.get(node_index)

    @cached_property
    def _innermost(self) -> dict[int, RecognisedBlock]:
        # parts come before their whole
        return {node_index: block for block in reversed(self._everything) for node_index in block.nodes}

    def innermost(self, node_index: int) -> RecognisedBlock | None:
        """The smallest block that a node is in."""
        return self._innermost.get(node_index)

    @cached_property
    def _selectors(self) -> dict[int, str]:
        return {
            id(block): f"{block.type}[{number}]"
            for name in self.types
            for number, block in enumerate(self.of_type(name))
            if block.type == name
        }

    def selector(self, block: RecognisedBlock) -> str:
        """What names a block of this tree by its type: ``C2f[3]``."""
        return self._selectors[id(block)]

    def display(self, block: RecognisedBlock) -> str | None:
        """The path of a block as the model spells it (/model.8); None where the names tell none."""
        module = self._tree.modules.get(block.path) if self._tree is not None and block.path else None
        return module.display if module is not None else block.path

    # ------------------------------------------------------------------ labels

    def _labelled(self, block: RecognisedBlock) -> RecognisedBlock:
        return self._labelled_as(block, block.role)

    def _labelled_as(self, block: RecognisedBlock, role: str | None) -> RecognisedBlock:
        parts = tuple((name, self._labelled_as(part, role)) for name, part in block.parts)
        return block.labelled(parts, self._path(block), role)

    def _path(self, block: RecognisedBlock) -> str | None:
        """The module that a block is, as far as its nodes tell: the innermost around all, or one with nothing else."""
        if self._tree is None:
            return None
        paths = [path for p in block.nodes if (path := self._tree.of_node[p])]
        if not paths:
            return self._path_by_weights(block)
        tokens = common_path(paths).split(".")
        # an item of a list or Sequential is named by its number, even where the list has no other
        while len(tokens) > 1 and not tokens[-1].isdigit() and self._holds_all_of(block, ".".join(tokens[:-1])):
            tokens.pop()
        return ".".join(tokens) or None

    def _path_by_weights(self, block: RecognisedBlock) -> str | None:
        index = self.view.index
        paths = [path for p in block.nodes if (path := from_weights(index.nodes[p], index.initializers))]
        path = common_path(paths)
        # of one convolution with its activation: the module that holds both, which its weights do not name
        return (path.removesuffix(".conv") if len(paths) == 1 else path) or None

    def _holds_all_of(self, block: RecognisedBlock, path: str) -> bool:
        """Whether a module does nothing outside of a block."""
        assert self._tree is not None
        active = self.view.active
        return all(p in block.nodes for p in self._tree.modules[path].nodes if p in active)
