"""The search for layouts: what the nodes of a graph say of the tensors around them, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import onnx

from ..modelfile.operators import STANDARD
from . import layout_operators
from .index import GraphIndex
from .layout_operators import BLOCKED, CHANNELS_FIRST, CHANNELS_LAST, Layout

_Found: TypeAlias = dict[str, Layout]


class _Relation(NamedTuple):
    """The layouts of some tensors are one; that of the outputs is moved by a permutation where there is one."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    moved: tuple[int, ...] = ()


class Search:
    """What the nodes of one graph say, and what follows from it."""

    def __init__(self) -> None:
        self.known: _Found = {}
        self._wanted: dict[str, set[Layout]] = {}
        """tensor -> the layouts that nodes read it in"""
        self._relations: list[_Relation] = []
        self._keeping: dict[str, str] = {}
        """tensor -> one of those that it has its layout from"""
        self._disputed: set[str] = set()

    @classmethod
    def of(cls, index: GraphIndex, nodes: Iterable[int]) -> Search:
        """The search that begins with what these nodes say."""
        search = cls()
        for node_index in sorted(nodes):
            search._read(index, index.nodes[node_index])
        return search

    def _read(self, index: GraphIndex, node: onnx.NodeProto) -> None:
        """Take in what a node says."""
        said = layout_operators.spatial(node, index)
        if said is not None:
            if said.reads is not None and node.input and node.input[0]:
                self._wanted.setdefault(node.input[0], set()).add(said.reads)
            if said.gives is not None:
                self.known.update((name, said.gives) for name in node.output[:1] if name)
                return
        inputs = layout_operators.kept_from(node, index)
        outputs = tuple(name for name in layout_operators.data_outputs(node) if name) if inputs else ()
        if outputs:
            moved = layout_operators.permutation(node)
            self._relations.append(_Relation(inputs, outputs, moved or ()))
            if not moved:
                self._keeping.update(dict.fromkeys(outputs, inputs[0]))

    def begin(self, tensor: str) -> bool:
        """Follow the layouts downstream once, as :meth:`settle` does first; whether that decides the one of a tensor,
        which nothing can change then.
        """
        for relation in self._relations:
            self._downstream(relation)
        if tensor in self._wanted:
            self._take(tensor, self._wanted[tensor])
        return tensor in self.known or tensor in self._disputed

    def settle(self) -> None:
        """Follow the layouts downstream, then upstream, until nothing more is found."""
        before = -1
        while before != len(self.known) + len(self._disputed):
            before = len(self.known) + len(self._disputed)
            for relation in self._relations:
                self._downstream(relation)
            for name, wanted in self._wanted.items():
                self._take(name, wanted)
            for relation in reversed(self._relations):
                self._upstream(relation)

    def suppose(self, index: GraphIndex, node: onnx.NodeProto) -> None:
        """Take in what a node makes likely where nothing tells.

        A Transpose is what it looks like, if it is of something that may be a map: an input of the model, or what an
        operator that ONNX does not know gives. What such an operator gives is in the layout that it reads, if that is
        another one than NCHW: a place that may not be NCHW is refused.
        """
        source, target = (*node.input[:1], *node.output[:1], "", "")[:2]
        if not source or not target or target in self.known or target in self._disputed:
            return
        moved = layout_operators.permutation(node)
        if moved in (CHANNELS_LAST, layout_operators.TO_CHANNELS_FIRST):
            if source not in self.known and source not in self._disputed and self._may_be_map(index, source):
                self.known[source] = CHANNELS_FIRST if moved == CHANNELS_LAST else CHANNELS_LAST
        elif _is_unknown(node) and self.known.get(source, BLOCKED) not in (BLOCKED, CHANNELS_FIRST):
            self.known[target] = self.known[source]

    def _may_be_map(self, index: GraphIndex, tensor: str) -> bool:
        node = index.producing(self.beginning(tensor))
        return node is None or _is_unknown(node)

    def beginning(self, tensor: str) -> str:
        """The tensor upstream of the operators that only keep the layout of this one."""
        seen = set[str]()
        while tensor in self._keeping and tensor not in seen:
            seen.add(tensor)
            tensor = self._keeping[tensor]
        return tensor

    def _downstream(self, relation: _Relation) -> None:
        found = {self.known[name] for name in relation.inputs if name in self.known}
        moved = {_moved(layout, relation.moved) for layout in found}
        for name in relation.outputs if moved else ():
            self._take(name, moved | self._wanted.get(name, set()))

    def _upstream(self, relation: _Relation) -> None:
        found = {self.known[name] for name in relation.outputs if name in self.known}
        moved = {_moved(layout, _inverse(relation.moved)) for layout in found}
        for name in relation.inputs if moved else ():
            self._take(name, moved | self._wanted.get(name, set()))

    def _take(self, name: str, layouts: Iterable[Layout | None]) -> None:
        """Note a layout where it is the only one that is said of a tensor."""
        if name in self.known or name in self._disputed:
            return
        said = set(layouts)
        layout = said.pop()
        if said or layout is None:
            self._disputed.add(name)
        else:
            self.known[name] = layout


def _is_unknown(node: onnx.NodeProto) -> bool:
    """Whether ONNX does not know the operator."""
    return node.domain not in STANDARD or not onnx.defs.has(node.op_type)


def _moved(layout: Layout, permutation: tuple[int, ...]) -> Layout | None:
    """The layout of what a Transpose gives; None where it does not fit the layout."""
    if not permutation:
        return layout
    if layout == BLOCKED or (layout and len(layout) != len(permutation)):
        return None
    order = tuple(layout[axis] if layout else axis for axis in permutation)
    return CHANNELS_FIRST if order == tuple(range(len(order))) else order


def _inverse(permutation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(permutation)), key=permutation.__getitem__))
