"""View: a graph as the author of a detector would draw it, whichever exporter wrote the file.

Nodes that only pass a value on (Identity, casts, quantisation and its inverse, changes of memory layout) are looked
through, and so are the blocks that we inserted; operators of quantised and optimised graphs stand under the name of the
operator that they compute; sizes and indices that are computed from shapes count as constants.

Tensors are meant by their *root*: the tensor upstream of a run of such nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from copy import copy
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import numpy_helper

from ..graph import quantisation
from ..graph.index import GraphIndex, reached, upstream
from ..graph.layout_operators import CHANNELS_LAST, computes
from ..graph.layouts import Layouts
from ..modelfile.operators import operator

Item = TypeVar("Item")

_PASSING = frozenset(
    {"Identity", "Dropout", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
    | {"ReorderInput", "ReorderOutput"}
)
"""operators whose (first) output is their first input in another form"""
_SHAPES = frozenset({"Shape", "Size"})
_QUANTISED = "QLinear"
"""what the names of quantised operators start with, before the name of what they compute"""
_SAME = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "BiasSplitGelu"), "Gelu"),
    "QuickGelu": "Swish",
    "FusedMatMul": "MatMul",
    "FusedGemm": "Gemm",
    "SkipLayerNormalization": "LayerNormalization",
    "Upsample": "Resize",
    "Sum": "Add",
    "NhwcConv": "Conv",
    "NhwcMaxPool": "MaxPool",
}
"""operators of older opsets and of onnxruntime's own domain -> what they compute"""
_WEIGHT = {"QLinearConv": 3}
"""where an operator has its weight, if not second"""


class _Consumers(dict[str, "list[int]"]):
    """Tensor -> the nodes that consume its values; none for one that is not in it."""

    def __missing__(self, tensor: str) -> list[int]:
        return []


class View:
    """The main graph of a model, seen as described above."""

    def __init__(self, index: GraphIndex, layouts: Layouts | None = None, *, values: Set[str] | None = None) -> None:
        """``values``: the tensors that can be values, where that is known already."""
        self.index = index
        self.layouts = layouts or Layouts(index)
        self._known_values = values
        self._roots: dict[str, str] = {}
        """of tensors that are passed on"""
        self._outlets: dict[str, str] = {}
        self._weight_shapes: dict[int, tuple[int, ...] | None] = {}
        self._inserted = {each.output_tensor: each.site.tensor for each in index.insertions if each.replaced is None}
        """output of an inserted block -> its input; blocks that we inserted are looked through, too, but for those that
        stand in the place of something, which count as that
        """

    # ------------------------------------------------------------------ tensors

    def root(self, tensor: str) -> str:
        """The tensor upstream of the nodes that only pass this one on."""
        if tensor not in self._before:
            return tensor
        run = []
        while tensor in self._before and tensor not in self._roots:
            run.append(tensor)
            if len(run) > len(self.index.nodes):  # more than there are: the graph has a cycle
                break
            tensor = self._before[tensor]
        root = self._roots.get(tensor, tensor)
        self._roots.update(dict.fromkeys(run, root))
        return root

    @cached_property
    def _before(self) -> dict[str, str]:
        """Tensor that is passed on -> what it was before: of a node that passes on, or of an inserted block."""
        index = self.index
        given = ((name, n) for n in self._passing for name in index.named_outputs[n] if index.producer[name] == n)
        return {name: index.inputs_of[n][0] for name, n in given if index.inputs_of[n][0]} | self._inserted

    @cached_property
    def _passing(self) -> frozenset[int]:
        """Indices of the nodes that only pass their first input on, as it is or in another form."""
        kinds, inputs = self.index.operators, self.index.inputs_of
        passing = {node_index for node_index, kind in enumerate(kinds) if kind in _PASSING}
        return frozenset(node_index for node_index in passing | self.layouts.detours if inputs[node_index])

    @cached_property
    def producer(self) -> Callable[[str], int | None]:
        """Index of the node that produces a tensor."""
        return self.index.producer.get  # asked for so often that a function around it would be felt

    @cached_property
    def consumers(self) -> Callable[[str], list[int]]:
        """Indices of the nodes that consume a tensor's values, in order; not those that only ask for its shape."""
        return self._consumers.__getitem__

    def is_output(self, root: str) -> bool:
        """Whether the tensor, as it is or passed on, is an output of the model."""
        return root in self._outputs

    def outlet(self, root: str) -> str:
        """The tensor in the file after which a block is inserted for this one.

        After what is inserted there already, and after what it is quantised, cast or transposed to NCHW by where all
        consumers see it through that (see quantisation.behind).
        """
        found = self._outlets.get(root)
        if found is None:
            found = root
            while (further := self._after_insertion(found) or self._behind(found)) is not None:
                found = further
            self._outlets[root] = found
        return found

    def _behind(self, tensor: str) -> str | None:
        return quantisation.behind(self.index, tensor) or self.layouts.behind(tensor)

    def _after_insertion(self, tensor: str) -> str | None:
        """The output of a block that is inserted at a tensor and is its only consumer."""
        insertions = [each for each in self.index.insertions_at.get(tensor, ()) if each.replaced is None]
        if len(insertions) != 1 or not self.index.insertion_of.keys() >= set(self.index.downstream([tensor])):
            return None
        return insertions[0].output_tensor

    # ------------------------------------------------------------------ nodes

    @cached_property
    def op(self) -> Callable[[int], str]:
        """The operator that a node computes, as ONNX calls it."""
        return self._operators.__getitem__

    @cached_property
    def inputs(self) -> Callable[[int], list[str]]:
        """The roots of the values that a node reads: no weights, no sizes, no quantisation parameters."""
        return self._inputs.__getitem__

    @cached_property
    def outputs(self) -> Callable[[int], list[str]]:
        """The outputs of a node that have a name."""
        return self.index.named_outputs.__getitem__

    def downstream(self, node_index: int) -> set[int]:
        """Indices of the nodes that consume what a node produces."""
        outputs = self.outputs(node_index)
        if len(outputs) == 1:  # most nodes
            return set(self.consumers(outputs[0]))
        return {consumer for name in outputs for consumer in self.consumers(name)}

    def clips_at_zero(self, node_index: int) -> bool:
        """Whether the output of a node is quantised to integers with 0 as its lowest value."""
        index, place = self.index, 7
        if index.operators[node_index] not in ("QLinearConv", "QLinearAdd"):
            consumers, place = index.downstream(index.named_outputs[node_index]), 2
            if len(consumers) != 1 or index.operators[consumers[0]] != quantisation.QUANTISE:
                return False
            (node_index,) = consumers
        inputs = index.inputs_of[node_index]
        zero = self.constant(inputs[place]) if len(inputs) > place else None
        if zero is None or zero.size != 1 or zero.dtype.kind not in "iu":  # the lowest 8-bit float is not 0
            return False
        return bool(zero.item() == np.iinfo(zero.dtype).min)

    def weight_shape(self, node_index: int) -> tuple[int, ...] | None:
        """Shape of the weight of a convolution or matrix product; None where it is computed."""
        if node_index not in self._weight_shapes:
            inputs, place = self.index.inputs_of[node_index], _WEIGHT.get(self.index.operators[node_index], 1)
            shape = self.constant_shape(inputs[place]) if len(inputs) > place else None
            self._weight_shapes[node_index] = shape
        return self._weight_shapes[node_index]

    def constant_shape(self, tensor: str) -> tuple[int, ...] | None:
        """Shape of a constant; None where the tensor is none."""
        stored = self._stored(self.root(tensor))
        return tuple(stored.dims) if stored is not None else None

    def constant(self, tensor: str) -> np.ndarray[Any, Any] | None:
        """Values of a small constant; None where the tensor is none, or large."""
        root = self.root(tensor)
        stored = self._stored(root)
        if stored is None or int(np.prod(stored.dims)) > 64:
            return None
        try:
            return self.index.model.tensor(root) if root in self.index.initializers else numpy_helper.to_array(stored)
        except Exception:  # a payload that is not there: then its values are not known
            return None

    def attribute(self, node_index: int, name: str) -> onnx.AttributeProto | None:
        """An attribute of a node."""
        attributes: Iterable[onnx.AttributeProto] = self.index.nodes[node_index].attribute
        for attribute in attributes:
            if attribute.name == name:
                return attribute
        return None

    def integers(self, node_index: int, name: str) -> tuple[int, ...]:
        """A list attribute of a node; () where it is not given."""
        attribute = self.attribute(node_index, name)
        return tuple(attribute.ints) if attribute is not None else ()

    def integer(self, node_index: int, name: str, default: int) -> int:
        """An integer attribute of a node."""
        attribute = self.attribute(node_index, name)
        return int(attribute.i) if attribute is not None else default

    def number(self, node_index: int, name: str) -> float | None:
        """A float attribute of a node; None where it is not given."""
        attribute = self.attribute(node_index, name)
        return float(attribute.f) if attribute is not None else None

    def given(self, node_index: int, place: int, attribute: str = "") -> tuple[Any, ...]:
        """The numbers that a node gets by a constant input or, in older opsets, by an attribute; () for none."""
        inputs = self.index.inputs_of[node_index]
        if len(inputs) > place and inputs[place]:
            value = self.constant(inputs[place])
            return () if value is None else tuple(value.ravel().tolist())
        found = self.attribute(node_index, attribute)
        return (*found.ints, *found.floats) if found is not None else ()

    def axes(self, node_index: int, axes: Iterable[int]) -> tuple[int, ...]:
        """Axes that a node names, as those of [N, C, H, W] where it works on NHWC; as they are where it does not."""
        axes = tuple(axes)
        if not any(map(self.layouts.is_channels_last, self.index.nodes[node_index].input)):
            return axes
        return tuple(CHANNELS_LAST[axis] if -4 <= axis < 4 else axis for axis in axes)

    def axis(self, node_index: int, default: int) -> int:
        """The attribute ``axis`` of a node, in this sense."""
        (axis,) = self.axes(node_index, [self.integer(node_index, "axis", default)])
        return axis

    def channels_first(self, tensor: str, numbers: tuple[Item, ...]) -> tuple[Item, ...]:
        """A number for every axis of a tensor, those of an NHWC one in the order of [N, C, H, W]."""
        if len(numbers) != 4 or not self.layouts.is_channels_last(tensor):
            return numbers
        return numbers[0], numbers[3], numbers[1], numbers[2]

    @cached_property
    def order(self) -> list[int]:
        """Indices of the nodes that work on values, each after those that it reads (files can be unsorted)."""
        active, producer = self.active, self.producer

        def awaited(node_index: int) -> int:
            names = self._inputs[node_index]
            if len(names) == 1:  # most nodes
                return int(producer(names[0]) in active)
            return len({producer(name) for name in names} & active)

        waiting = {node_index: awaited(node_index) for node_index in active}
        ready = sorted((p for p, count in waiting.items() if not count), reverse=True)
        found = []
        while ready:
            node_index = ready.pop()
            found.append(node_index)
            following = self.downstream(node_index)
            for consumer in sorted(following, reverse=True) if len(following) > 1 else following:
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    ready.append(consumer)
        return found

    def part(self, order: list[int]) -> View:
        """The same graph with some of its nodes only, given in order; places stay those of the whole."""
        place, found = self.place, copy(self)
        found.__dict__.update(order=order, active=set(order), place=place)
        return found

    @cached_property
    def place(self) -> dict[int, int]:
        """Index of a node -> its place in ``order``."""
        return {node_index: place for place, node_index in enumerate(self.order)}

    @cached_property
    def active(self) -> set[int]:
        """Indices of the nodes whose values depend on an input of the model, other than through shapes alone, and of
        whose values an output does; not those that only pass values on.
        """
        added = {each for each, of in self.index.insertion_of.items() if of.replaced is None}
        return (self._live & self._used) - added - self._passing

    # ------------------------------------------------------------------ built once

    @cached_property
    def _live(self) -> set[int]:
        operators = self.index.operators

        def consumers(tensors: Iterable[str]) -> list[int]:
            return [n for n in self.index.downstream(tensors) if operators[n] not in _SHAPES]

        def further(node_index: int) -> list[int]:
            outputs = self.outputs(node_index)
            if operators[node_index] == quantisation.DYNAMIC:  # its scale is a parameter, not a value
                outputs = self.index.nodes[node_index].output[:1]
            return consumers(filter(self._may_be_value, outputs))

        return reached(consumers(self.index.free_inputs), further)

    def _may_be_value(self, tensor: str) -> bool:
        return self._known_values is None or tensor in self._known_values

    @cached_property
    def _used(self) -> set[int]:
        """Indices of the nodes that an output of the model depends on; of all where it has none."""
        producer, reads = self.index.producer, self.index.reads
        return set(upstream(self.index.outputs or producer, producer, reads))

    def is_used(self, tensor: str) -> bool:
        """Whether an output of the model is, or depends on, a tensor; so it is for all where the model has none."""
        return tensor in self.index.outputs or not self._used.isdisjoint(self.index.consumers.get(tensor, ()))

    @cached_property
    def values(self) -> set[str]:
        """The tensors whose values depend on an input of the model, other than through shapes alone."""
        return {name for node_index in self._live for name in self.outputs(node_index)}.union(self.index.free_inputs)

    @cached_property
    def _inputs(self) -> dict[int, list[str]]:
        values, table = self.values, dict[int, list[str]]()
        for node_index in self.active:
            names = self.index.inputs_of[node_index]
            names = names[:1] if self.index.operators[node_index] == "ConvInteger" else names
            table[node_index] = [self.root(name) for name in names if name in values and self._may_be_value(name)]
        return table

    @cached_property
    def _operators(self) -> list[str]:
        kinds = [computes(node) for node in self.index.nodes]
        known = {kind: _SAME.get(kind) or kind.removeprefix(_QUANTISED) for kind in set(kinds)}
        return [known[kind] for kind in kinds]

    @cached_property
    def _consumers(self) -> _Consumers:
        table, captured = _Consumers(), self.index.captured
        for node_index in sorted(self.active):
            names = self._inputs[node_index]
            if node_index in captured:
                names = [*names, *map(self.root, captured[node_index].difference(self.index.inputs_of[node_index]))]
            for name in dict.fromkeys(names) if len(names) > 1 else names:
                if name in table:
                    table[name].append(node_index)
                else:
                    table[name] = [node_index]
        return table

    @cached_property
    def _outputs(self) -> set[str]:
        return {self.root(name) for name in self.index.outputs}

    def _stored(self, tensor: str) -> onnx.TensorProto | None:
        """An initializer, or what a Constant gives."""
        place = self.index.initializers.get(tensor)
        if place is not None:
            initializer: onnx.TensorProto = self.index.model.structure.graph.initializer[place]
            return initializer
        node = self.index.producing(tensor)
        if node is None or operator(node) != "Constant":
            return None
        return next((a.t for a in node.attribute if a.name == "value"), None)
