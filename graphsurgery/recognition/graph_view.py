"""View: a graph as a detector's author would draw it, whatever wrote the file.

Nodes that only pass a value on (Identity, casts, quantisation and its inverse, changes of memory layout) are looked
through, and so are the blocks that we inserted; operators of quantised and optimised graphs stand under the name of the
operator that they compute; sizes and indices that are computed from shapes count as constants.

Tensors are meant by their *root*: the tensor at the front of a run of such nodes.
"""

from __future__ import annotations

from collections.abc import Set
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..graph import quantisation
from ..graph.index import GraphIndex

_PASSING = frozenset(
    {"Identity", "Dropout", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
    | {"ReorderInput", "ReorderOutput"}
)
"""operators whose (first) output is their first input in another form"""
_SHAPES = frozenset({"Shape", "Size"})
_QUANTISED = "QLinear"
"""what the names of quantised operators start with, before the name of what they compute"""
_SAME = {
    "QuickGelu": "Swish",
    "FusedMatMul": "MatMul",
    "FusedGemm": "Gemm",
    "BiasGelu": "Gelu",
    "FastGelu": "Gelu",
    "SkipLayerNormalization": "LayerNormalization",
    "BiasSplitGelu": "Gelu",
    "Upsample": "Resize",
    "Sum": "Add",
}
"""operators of older opsets and of onnxruntime's own domain -> what they compute"""
_WEIGHT = {"QLinearConv": 3}
"""where an operator has its weight, if not second"""


class View:
    """The main graph of a model, seen as described above."""

    def __init__(self, index: GraphIndex, values: Set[str] | None = None) -> None:
        """``values``: the tensors that can be values, where that is known already."""
        self.index = index
        self._known_values = values
        self._roots: dict[str, str] = {}
        self._inserted: dict[str, str] = {}
        """what an inserted block gives -> what it reads; blocks that we inserted are looked through, too"""
        self._made_of: dict[str, list[str]] = {}
        """the other way round"""
        self._hidden: set[int] = set()
        for insertion in index.model.insertions():
            self._hidden.update(p for name in insertion.nodes for p in index.node_names.get(name, ()))
            self._inserted[insertion.output_tensor] = insertion.site.tensor
            self._made_of.setdefault(insertion.site.tensor, []).append(insertion.output_tensor)

    # ------------------------------------------------------------------ tensors

    def root(self, tensor: str) -> str:
        """The tensor at the front of the nodes that only pass this one on."""
        known = self._roots.get(tensor)
        if known is not None:
            return known
        run = []
        while tensor not in self._roots:
            run.append(tensor)
            before = self._inserted.get(tensor) or self._passed(tensor)
            if before is None or len(run) > len(self.index.nodes):  # more than there are: the graph has a cycle
                break
            tensor = before
        root = self._roots.get(tensor, tensor)
        self._roots.update(dict.fromkeys(run, root))
        return root

    def _passed(self, tensor: str) -> str | None:
        """What a node that only passes something on made this tensor from."""
        position = self.index.producer.get(tensor)
        node = self.index.nodes[position] if position is not None else None
        return node.input[0] or None if node is not None and node.op_type in _PASSING and node.input else None

    def producer(self, root: str) -> int | None:
        """Position of the node that makes a tensor."""
        return self.index.producer.get(root)

    def consumers(self, root: str) -> list[int]:
        """Positions of the nodes that read a tensor's values, in order; not those that only ask for its shape."""
        return self._consumers.get(root, [])

    def is_output(self, root: str) -> bool:
        """Whether the tensor, as it is or passed on, is an output of the model."""
        return root in self._outputs

    def outlet(self, root: str) -> str:
        """The tensor in the file behind which a block stands for this one: behind what is inserted there already, and
        behind what it is quantised or cast by where all readers see it through that (see quantisation.behind).
        """
        tensor = root
        while True:
            inserted, through = self._behind_insertion(tensor), quantisation.behind(self.index, tensor)
            if inserted is None and through is None:
                return tensor
            tensor = inserted or through or tensor

    def _behind_insertion(self, tensor: str) -> str | None:
        """What an inserted block makes of a tensor that nobody else reads."""
        made = self._made_of.get(tensor, ())
        readers = self.index.consumers.get(tensor, ())
        return made[0] if len(made) == 1 and all(reader in self._hidden for reader in readers) else None

    # ------------------------------------------------------------------ nodes

    def op(self, position: int) -> str:
        """The operator that a node computes, as ONNX calls it."""
        kind = self.index.nodes[position].op_type
        return _SAME.get(kind) or kind.removeprefix(_QUANTISED)

    def passes(self, position: int) -> bool:
        """Whether a node only passes its input on, or belongs to a block that we inserted."""
        return position in self._hidden or self.index.nodes[position].op_type in _PASSING

    def inputs(self, position: int) -> list[str]:
        """The roots of the values that a node reads: no weights, no sizes, no quantisation parameters."""
        return self._inputs[position]

    def outputs(self, position: int) -> list[str]:
        """The outputs of a node that have a name."""
        return self._named_outputs[position]

    def clips_at_zero(self, position: int) -> bool:
        """Whether the output of a node is quantised to integers with 0 as its lowest value."""
        node, index = self.index.nodes[position], self.index
        place = 7
        if node.op_type not in ("QLinearConv", "QLinearAdd"):
            consumers = [index.nodes[p] for name in node.output for p in index.consumers.get(name, ())]
            if len(consumers) != 1 or consumers[0].op_type != quantisation.QUANTISE:
                return False
            node, place = consumers[0], 2
        zero = self.constant(node.input[place]) if len(node.input) > place else None
        if zero is None or zero.size != 1 or zero.dtype.kind not in "iu":  # the lowest 8-bit float is not 0
            return False
        return bool(zero.item() == np.iinfo(zero.dtype).min)

    def weight_shape(self, position: int) -> tuple[int, ...] | None:
        """Shape of the weight of a convolution or matrix product; None where it is computed."""
        node = self.index.nodes[position]
        place = _WEIGHT.get(node.op_type, 1)
        return self.constant_shape(node.input[place]) if len(node.input) > place else None

    def constant_shape(self, tensor: str) -> tuple[int, ...] | None:
        """Shape of a constant; None where the tensor is none."""
        tensor = self.root(tensor)
        place = self.index.initializers.get(tensor)
        if place is not None:
            return tuple(self.index.model.structure.graph.initializer[place].dims)
        value = self._constant_node(tensor)
        return tuple(value.dims) if value is not None else None

    def constant(self, tensor: str) -> np.ndarray[Any, Any] | None:
        """Values of a small constant; None where the tensor is none, or large."""
        shape = self.constant_shape(tensor)
        if shape is None or int(np.prod(shape)) > 64:
            return None
        root = self.root(tensor)
        value = self._constant_node(root)
        if value is not None:
            return numpy_helper.to_array(value)
        try:
            return self.index.model.tensor(root)
        except Exception:  # a payload that is not there: then its values are not known
            return None

    def attribute(self, position: int, name: str) -> onnx.AttributeProto | None:
        """An attribute of a node."""
        return next((a for a in self.index.nodes[position].attribute if a.name == name), None)

    def integers(self, position: int, name: str) -> tuple[int, ...]:
        """A list attribute of a node; () where it is not given."""
        attribute = self.attribute(position, name)
        return tuple(attribute.ints) if attribute is not None else ()

    def integer(self, position: int, name: str, default: int) -> int:
        """An integer attribute of a node."""
        attribute = self.attribute(position, name)
        return int(attribute.i) if attribute is not None else default

    def given(self, position: int, place: int, attribute: str = "") -> tuple[Any, ...]:
        """The numbers that a node gets by a constant input or, in older opsets, by an attribute; () for none."""
        node = self.index.nodes[position]
        if len(node.input) > place and node.input[place]:
            value = self.constant(node.input[place])
            return () if value is None else tuple(value.ravel().tolist())
        found = self.attribute(position, attribute)
        return (*found.ints, *found.floats) if found is not None else ()

    @cached_property
    def order(self) -> list[int]:
        """Positions of the nodes that work on values, each behind those that it reads (files can be unsorted)."""
        waiting = {p: len({self.producer(name) for name in self._inputs[p]} & self.active) for p in self.active}
        ready = sorted((p for p, count in waiting.items() if not count), reverse=True)
        found = []
        while ready:
            position = ready.pop()
            found.append(position)
            for consumer in sorted({c for name in self.outputs(position) for c in self.consumers(name)}, reverse=True):
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    ready.append(consumer)
        return found

    @cached_property
    def place(self) -> dict[int, int]:
        """Position of a node -> its place in ``order``."""
        return {position: place for place, position in enumerate(self.order)}

    @cached_property
    def active(self) -> set[int]:
        """Positions of the nodes whose values depend on an input of the model, other than through shapes alone, and of
        whose values an output does; not those that only pass values on.
        """
        return {position for position in self._live & self._used if not self.passes(position)}

    # ------------------------------------------------------------------ built once

    @cached_property
    def _live(self) -> set[int]:
        index, found = self.index, set[int]()
        pending = [name for name in index.inputs if name not in index.initializers]
        while pending:
            for position in index.consumers.get(pending.pop(), ()):
                if position not in found and index.nodes[position].op_type not in _SHAPES:
                    found.add(position)
                    node = index.nodes[position]  # the scale of a dynamic quantisation is a parameter, not a value
                    outputs = node.output[:1] if node.op_type == "DynamicQuantizeLinear" else node.output
                    pending += [name for name in outputs if self._known_values is None or name in self._known_values]
        return found

    @cached_property
    def _used(self) -> set[int]:
        """Positions of the nodes that an output of the model depends on; of all where it has none."""
        index, found = self.index, set[int]()
        pending = list(index.outputs) or list(index.producer)
        while pending:
            position = index.producer.get(pending.pop())
            if position is not None and position not in found:
                found.add(position)
                pending += index.reads(position)
        return found

    @cached_property
    def values(self) -> set[str]:
        """The tensors whose values depend on an input of the model, other than through shapes alone."""
        return {name for name in self.index.inputs if name not in self.index.initializers}.union(
            name for position in self._live for name in self.index.nodes[position].output if name
        )

    @cached_property
    def _inputs(self) -> dict[int, list[str]]:
        index, known, table = self.index, self._known_values, dict[int, list[str]]()
        images = {name for name in index.inputs if name not in index.initializers}
        for node_index in self.active:
            node = index.nodes[node_index]
            names = node.input[:1] if node.op_type == "ConvInteger" else node.input
            values = (name for name in names if name in images or index.producer.get(name) in self._live)
            table[node_index] = [self.root(name) for name in values if known is None or name in known]
        return table

    @cached_property
    def _named_outputs(self) -> list[list[str]]:
        return [[name for name in node.output if name] for node in self.index.nodes]

    @cached_property
    def _consumers(self) -> dict[str, list[int]]:
        table: dict[str, list[int]] = {}
        for position in sorted(self.active):
            captured = self.index.reads(position).difference(self.index.nodes[position].input)
            for name in dict.fromkeys([*self._inputs[position], *map(self.root, captured)]):
                table.setdefault(name, []).append(position)
        return table

    @cached_property
    def _outputs(self) -> set[str]:
        return {self.root(name) for name in self.index.outputs}

    def _constant_node(self, tensor: str) -> onnx.TensorProto | None:
        position = self.index.producer.get(tensor)
        if position is None or self.index.nodes[position].op_type != "Constant":
            return None
        return next((a.t for a in self.index.nodes[position].attribute if a.name == "value"), None)
