"""Layouts: in which order the axes of a tensor are, followed from the operators and never read off sizes.

A convolution, a pooling or a BatchNormalization says that what it reads and gives has its channels first, NCHW;
Transpose gives another order; elementwise operators and Concat keep the one that they read. What no operator upstream
tells, those downstream do: what is transposed by (0, 3, 1, 2) into a Conv is NHWC. Reshape, Flatten and the like end a
layout. Where operators contradict each other, or none tells, the layout is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import onnx

from ..errors import ModelError
from ..modelfile.operators import STANDARD, is_namesake, operator
from . import layout_operators, local_functions, quantisation
from .index import GraphIndex
from .layout_operators import BLOCKED, CHANNELS_FIRST, CHANNELS_LAST, Layout
from .moved_channels import is_image_last, moved_channels, takes_away

NCHWC = "NCHWc"
"""blocks of channels, as onnxruntime's optimiser stores maps for one kind of processor"""
_LINEAR = frozenset({"LayerNormalization", "RMSNormalization", *layout_operators.LINEAR})
"""operators of tokens, which have their channels last by themselves"""
_Found: TypeAlias = dict[str, Layout]


@dataclass(frozen=True)
class _Relation:
    """The layouts of some tensors are one; that of the outputs is moved by a permutation where there is one."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    moved: tuple[int, ...] = ()


class Layouts:
    """The layouts of the tensors of one graph."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index

    def foreign(self, tensor: str) -> str | None:
        """The layout of a tensor of four axes whose channels are known not to be its second one: ``NHWC`` or another
        order, :data:`NCHWC`; None for NCHW, and where the operators do not tell.
        """
        layout = self._known.get(tensor, CHANNELS_FIRST)
        if layout == BLOCKED:
            return NCHWC
        return "".join("NCHW"[axis] for axis in layout) if len(layout) == 4 and layout[1] != 1 else None

    def is_channels_first(self, tensor: str) -> bool:
        """Whether a tensor is known to be NCHW."""
        return self._known.get(tensor) == CHANNELS_FIRST

    def is_channels_last(self, tensor: str) -> bool:
        """Whether a tensor is known to be NHWC."""
        return self._known.get(tensor) == CHANNELS_LAST

    def moved(self, tensor: str) -> str | None:
        """For a tensor of unknown layout, one upstream whose channels are not its second axis; None where there is
        none, or the layout is known.
        """
        return self._moved.get(tensor)

    def doubtful(self, tensor: str) -> onnx.NodeProto | None:
        """The node with the name of one of ONNX's operators, and of another domain, that alone could tell the layout
        of a tensor; None where the layout is known, or rests on nothing of the kind.
        """
        node = self._index.producing(self._search.beginning(tensor)) if tensor not in self._known else None
        return node if node is not None and is_namesake(node) else None

    def upstream_map(self, tensor: str) -> str | None:
        """The NCHW tensor that a Transpose gives this one of; None where none does."""
        node = self._index.producing(tensor)
        changes = node is not None and operator(node) in layout_operators.CHANGING
        return node.input[0] if node is not None and changes and self.is_channels_first(node.input[0]) else None

    def downstream_maps(self, tensor: str) -> list[str]:
        """The NCHW tensors that Transposes give of this one."""
        nodes = (self._index.nodes[node_index] for node_index in self._index.consumers.get(tensor, ()))
        found = (str(node.output[0]) for node in nodes if operator(node) in layout_operators.CHANGING and node.output)
        return list(filter(self.is_channels_first, found))

    def behind(self, tensor: str) -> str | None:
        """The NCHW tensor through which everything reads one that is not; None where some read it otherwise."""
        consumers = self._index.consumers.get(tensor, [])
        if tensor in self._index.outputs or len(consumers) != 1 or self.foreign(tensor) is None:
            return None
        return next(iter(self.downstream_maps(tensor)), None)

    def outlet(self, tensor: str) -> str:
        """The tensor at the end of what quantises, casts or transposes one for all that read it."""
        while (further := quantisation.behind(self._index, tensor) or self.behind(tensor)) is not None:
            tensor = further
        return tensor

    def root(self, tensor: str) -> str:
        """The tensor that this one is another form of: upstream of quantisation, casts, and the Transposes of a detour
        to NHWC.
        """
        for _ in self._index.nodes:  # a file can have a cycle
            tensor = quantisation.root(self._index, tensor)
            node_index = self._index.producer.get(tensor, -1)
            if node_index not in self.detours:
                break
            tensor = self._index.nodes[node_index].input[0]
        return tensor

    @cached_property
    def detours(self) -> frozenset[int]:
        """Indices of the Transposes around elementwise operators that an exporter has left in NHWC: those between NCHW
        and NHWC whose NHWC tensors come from an NCHW map or an input, and go to an NCHW map or an output, through such
        operators alone. Not those in front of tokens, or around a linear layer.
        """
        changes = {p: ends for p in self._index.active if (ends := self._change(p)) is not None}
        part = _Parts()
        for node_index in self._index.active if changes else ():
            node = self._index.nodes[node_index]
            if operator(node) not in _LINEAR and layout_operators.keeps(node, self._index):
                names = [*layout_operators.data_inputs(node), *layout_operators.data_outputs(node)]
                part.join(name for name in names if self.is_channels_last(name))
        given = {part.of(last) for first, last, there in changes.values() if there}
        given |= {part.of(name) for name in self._index.free_inputs}
        taken = {part.of(last) for first, last, there in changes.values() if not there}
        taken |= {part.of(name) for name in self._index.outputs}
        around = given & taken
        return frozenset(p for p, (_, last, _) in changes.items() if part.of(last) in around)

    def _change(self, node_index: int) -> tuple[str, str, bool] | None:
        """The NCHW and the NHWC tensor of a Transpose between these, and whether it gives the NHWC one."""
        node = self._index.nodes[node_index]
        if layout_operators.permutation(node) not in (CHANNELS_LAST, layout_operators.TO_CHANNELS_FIRST):
            return None
        source, target = node.input[0], node.output[0]
        if self.is_channels_first(source) and self.is_channels_last(target):
            return source, target, True
        return (target, source, False) if self.is_channels_last(source) and self.is_channels_first(target) else None

    # ------------------------------------------------------------------ built once

    @cached_property
    def _known(self) -> _Found:
        """tensor -> its layout"""
        return self._search.known

    @cached_property
    def _moved(self) -> dict[str, str]:
        """tensor of unknown layout -> one upstream whose channels are not its second axis"""
        return moved_channels(self._whole, self._has_channels_first) if self._moves_channels else {}

    def _has_channels_first(self, tensor: str) -> bool | None:
        layout = self._known.get(tensor)
        return None if layout is None else layout != BLOCKED and (not layout or layout[1] == 1)

    @cached_property
    def _search(self) -> _Search:
        """What follows from the nodes; nothing for graphs in which none moves channels, where all maps are NCHW."""
        index, search = self._whole, _Search()
        if not self._moves_channels:
            return search
        for node_index in sorted(index.active):
            search.read(index, index.nodes[node_index])
        search.settle()
        for node_index in sorted(index.active):
            search.suppose(index, index.nodes[node_index])
        search.settle()
        return search

    @cached_property
    def _moves_channels(self) -> bool:
        index = self._whole
        moving = any(layout_operators.moves_channels(node, index) or takes_away(node) for node in index.nodes)
        return moving or any(is_image_last(index, name) for name in index.free_inputs)

    @cached_property
    def _whole(self) -> GraphIndex:
        """The graph with its calls of local functions written out: tensors outside of these keep their names."""
        model = self._index.model
        if not model.structure.functions:
            return self._index
        try:
            flat = local_functions.written_out(model.structure, model.name)
        except ModelError:  # recursive, incomplete or countless functions
            return self._index
        seen = copy(model)  # its payload stays where it is
        seen.structure, seen.graph = flat, flat.graph
        return GraphIndex(seen)


class _Parts:
    """Tensors in parts: those that were joined are in the same one."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, tensor: str) -> str:
        """The tensor that stands for the part of one."""
        while (above := self._above.get(tensor, tensor)) != tensor:
            self._above[tensor] = tensor = self._above.get(above, above)
        return tensor

    def join(self, tensors: Iterable[str]) -> None:
        """Put tensors, and all that these are with, into one part."""
        first: str | None = None
        for tensor in tensors:
            first = first or self.of(tensor)
            self._above[self.of(tensor)] = first


class _Search:
    """What the nodes of one graph say, and what follows from it."""

    def __init__(self) -> None:
        self.known: _Found = {}
        self._wanted: dict[str, set[Layout]] = {}
        """tensor -> the layouts that nodes read it in"""
        self._relations: list[_Relation] = []
        self._keeping: dict[str, str] = {}
        """tensor -> one of those that it has its layout from"""
        self._disputed: set[str] = set()

    def read(self, index: GraphIndex, node: onnx.NodeProto) -> None:
        """Take in what a node says."""
        said = layout_operators.spatial(node, index)
        if said is not None:
            if said.reads is not None and node.input and node.input[0]:
                self._wanted.setdefault(node.input[0], set()).add(said.reads)
            if said.gives is not None:
                self.known.update((name, said.gives) for name in node.output[:1] if name)
                return
        moved = layout_operators.permutation(node)
        if moved is None and not layout_operators.keeps(node, index):
            return
        data = layout_operators.data_inputs(node)
        inputs = tuple(dict.fromkeys(name for name in data if name and index.is_activation(name)))
        outputs = tuple(name for name in layout_operators.data_outputs(node) if name)
        if inputs and outputs:
            self._relations.append(_Relation(inputs, outputs, moved or ()))
            if not moved:
                self._keeping.update(dict.fromkeys(outputs, inputs[0]))

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
