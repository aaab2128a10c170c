"""Layouts: in which order the axes of a tensor are, followed from the operators and never read off sizes.

A convolution, a pooling or a BatchNormalization says that what it reads and gives has its channels first, NCHW;
Transpose gives another order; elementwise operators and Concat keep the one that they read. What no operator upstream
tells, those downstream do: what is transposed by (0, 3, 1, 2) into a Conv is NHWC. Reshape, Flatten and the like end a
layout. Where operators contradict each other, or none tells, the layout is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from functools import cached_property

import onnx

from ..errors import ModelError
from ..modelfile.operators import is_namesake, operator
from . import layout_operators, local_functions, quantisation
from .index import GraphIndex, reached
from .layout_operators import BLOCKED, CHANNELS_FIRST, CHANNELS_LAST, Layout
from .layout_search import Search
from .moved_channels import is_image_last, moved_channels, takes_away

NCHWC = "NCHWc"
"""blocks of channels, as onnxruntime's optimiser stores maps for one kind of processor"""
_LINEAR = frozenset({"LayerNormalization", "RMSNormalization", *layout_operators.LINEAR})
"""operators of tokens, which have their channels last by themselves"""


class Layouts:
    """The layouts of the tensors of one graph."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._near: dict[str, Layout | None] = {}
        """tensor -> its layout, where what is around it told it or told that nobody can know it"""
        self._looked_at = 0
        """the number of nodes that were looked at for these"""

    def foreign(self, tensor: str) -> str | None:
        """The layout of a tensor of four axes whose channels are known not to be its second one: ``NHWC`` or another
        order, :data:`NCHWC`; None for NCHW, and where the operators do not tell.
        """
        layout = self._layout(tensor) or CHANNELS_FIRST
        if layout == BLOCKED:
            return NCHWC
        return "".join("NCHW"[axis] for axis in layout) if len(layout) == 4 and layout[1] != 1 else None

    def is_channels_first(self, tensor: str) -> bool:
        """Whether a tensor is known to be NCHW."""
        return self._layout(tensor) == CHANNELS_FIRST

    def is_channels_last(self, tensor: str) -> bool:
        """Whether a tensor is known to be NHWC."""
        return self._layout(tensor) == CHANNELS_LAST

    def moved(self, tensor: str) -> str | None:
        """For a tensor of unknown layout, one upstream whose channels are not its second axis; None where there is
        none, or the layout is known.
        """
        return self._moved.get(tensor) if self._layout(tensor) is None else None

    def doubtful(self, tensor: str) -> onnx.NodeProto | None:
        """The node with the name of one of ONNX's operators, and of another domain, that alone could tell the layout
        of a tensor; None where the layout is known, or rests on nothing of the kind.
        """
        if self._layout(tensor) is not None:
            return None
        node = self._index.producing(self._search.beginning(tensor))
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

    # ------------------------------------------------------------------ one tensor

    def _layout(self, tensor: str) -> Layout | None:
        """The layout of a tensor; None where it is not known.

        The nodes around most tensors tell it. The whole graph is searched where they do not, and once those that were
        looked at are as many as there are.
        """
        if not self._moves_channels:
            return None
        if tensor not in self._near and "_search" not in vars(self) and self._looked_at < len(self._whole.nodes):
            around = self._search_around(tensor)
            if around.begin(tensor):
                self._near[tensor] = around.known.get(tensor)
        return self._near[tensor] if tensor in self._near else self._search.known.get(tensor)

    def _search_around(self, tensor: str) -> Search:
        """What those nodes say from which a tensor can have its layout: the ones upstream, up to operators that do not
        keep what they read, and all that read the same tensors.
        """
        index = self._whole
        upstream = reached([tensor], self._kept_from)
        nodes = {index.producer[name] for name in upstream if name in index.producer}.union(index.downstream(upstream))
        nodes &= index.active
        self._looked_at += len(nodes)
        return Search.of(index, nodes)

    def _kept_from(self, tensor: str) -> tuple[str, ...]:
        """The tensors from which one has its layout, if it has it from others."""
        node = self._whole.producing(tensor)
        if node is None:
            return ()
        said = layout_operators.spatial(node, self._whole)
        fixes = said is not None and said.gives is not None
        return () if fixes else layout_operators.kept_from(node, self._whole)

    # ------------------------------------------------------------------ built once

    @cached_property
    def _moved(self) -> dict[str, str]:
        """tensor of unknown layout -> one upstream whose channels are not its second axis"""
        return moved_channels(self._whole, self._has_channels_first) if self._moves_channels else {}

    def _has_channels_first(self, tensor: str) -> bool | None:
        layout = self._search.known.get(tensor)
        return None if layout is None else layout != BLOCKED and (not layout or layout[1] == 1)

    @cached_property
    def _search(self) -> Search:
        """What follows from the nodes; nothing for graphs in which none moves channels, where all maps are NCHW."""
        index = self._whole
        if not self._moves_channels:
            return Search()
        search = Search.of(index, index.active)
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
