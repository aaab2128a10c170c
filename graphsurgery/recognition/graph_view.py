"""View: a graph as the author of a detector would draw it, whichever exporter wrote the file.

Nodes that only pass a value on (Identity, casts, quantisation and its inverse, changes of memory layout) are looked
through, and so are the blocks that we inserted; operators of quantised and optimised graphs stand under the name of the
operator that they compute; sizes and indices that are computed from shapes count as constants.

Tensors are meant by their *root*: the tensor upstream of a run of such nodes.
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
        """output of an inserted block -> its input; blocks that we inserted are looked through, too"""
        self._inserted_after: dict[str, list[str]] = {}
        """the other way round"""
        self._hidden: set[int] = set()
        for insertion in index.model.insertions():
            self._hidden.update(p for name in insertion.nodes for p in index.node_names.get(name, ()))
            self._inserted[insertion.output_tensor] = insertion.site.tensor
            self._inserted_after.setdefault(insertion.site.tensor, []).append(insertion.output_tensor)

    # ------------------------------------------------------------------ tensors

    def root(self, tensor: str) -> str:
        """The tensor upstream of the nodes that only pass this one on."""
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
        """What a node that only passes something on produced this tensor from."""
        node_index = self.index.producer.get(tensor)
        node = self.index.nodes[node_index] if node_index is not None else None
        return node.input[0] or None if node is not None and node.op_type in _PASSING and node.input else None

    def producer(self, root: str) -> int | None:
        """Index of the node that produces a tensor."""
        return self.index.producer.get(root)

    def consumers(self, root: str) -> list[int]:
        """Indices of the nodes that consume a tensor's values, in order; not those that only ask for its shape."""
        return self._consumers.get(root, [])

    def is_output(self, root: str) -> bool:
        """Whether the tensor, as it is or passed on, is an output of the model."""
        return root in self._outputs

    def outlet(self, root: str) -> str:
        """The tensor in the file after which a block is inserted for this one.

        After what is inserted there already, and after what it is quantised or cast by where all consumers see it
        through that (see quantisation.behind).
        """
        tensor = root
        while True:
            inserted, through = self._after_insertion(tensor), quantisation.behind(self.index, tensor)
            if inserted is None and through is None:
                return tensor
            tensor = inserted or through or tensor

    def _after_insertion(self, tensor: str) -> str | None:
        """The output of a block that is inserted at a tensor and is its only consumer."""
        outputs = self._inserted_after.get(tensor, ())
        consumers = self.index.consumers.get(tensor, ())
        return outputs[0] if len(outputs) == 1 and all(consumer in self._hidden for consumer in consumers) else None

    # ------------------------------------------------------------------ nodes

    def op(self, node_index: int) -> str:
        """The operator that a node computes, as ONNX calls it."""
        kind = self.index.nodes[node_index].op_type
        return _SAME.get(kind) or kind.removeprefix(_QUANTISED)

    def passes(self, node_index: int) -> bool:
        """Whether a node only passes its input on, or belongs to a block that we inserted."""
        return node_index in self._hidden or self.index.nodes[node_index].op_type in _PASSING

    def inputs(self, node_index: int) -> list[str]:
        """The roots of the values that a node reads: no weights, no sizes, no quantisation parameters."""
        return self._inputs[node_index]

    def outputs(self, node_index: int) -> list[str]:
        """The outputs of a node that have a name."""
        return self._named_outputs[node_index]

    def clips_at_zero(self, node_index: int) -> bool:
        """Whether the output of a node is quantised to integers with 0 as its lowest value."""
        node, index = self.index.nodes[node_index], self.index
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

    def weight_shape(self, node_index: int) -> tuple[int, ...] | None:
        """Shape of the weight of a convolution or matrix product; None where it is computed."""
        node = self.index.nodes[node_index]
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

    def attribute(self, node_index: int, name: str) -> onnx.AttributeProto | None:
        """An attribute of a node."""
        return next((a for a in self.index.nodes[node_index].attribute if a.name == name), None)

    def integers(self, node_index: int, name: str) -> tuple[int, ...]:
        """A list attribute of a node; () where it is not given."""
        attribute = self.attribute(node_index, name)
        return tuple(attribute.ints) if attribute is not None else ()

    def integer(self, node_index: int, name: str, default: int) -> int:
        """An integer attribute of a node."""
        attribute = self.attribute(node_index, name)
        return int(attribute.i) if attribute is not None else default

    def given(self, node_index: int, place: int, attribute: str = "") -> tuple[Any, ...]:
        """The numbers that a node gets by a constant input or, in older opsets, by an attribute; () for none."""
        node = self.index.nodes[node_index]
        if len(node.input) > place and node.input[place]:
            value = self.constant(node.input[place])
            return () if value is None else tuple(value.ravel().tolist())
        found = self.attribute(node_index, attribute)
        return (*found.ints, *found.floats) if found is not None else ()

    @cached_property
    def order(self) -> list[int]:
        """Indices of the nodes that work on values, each after those that it reads (files can be unsorted)."""
        waiting = {p: len({self.producer(name) for name in self._inputs[p]} & self.active) for p in self.active}
        ready = sorted((p for p, count in waiting.items() if not count), reverse=True)
        found = []
        while ready:
            node_index = ready.pop()
            found.append(node_index)
            for consumer in sorted(
                {c for name in self.outputs(node_index) for c in self.consumers(name)}, reverse=True
            ):
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    ready.append(consumer)
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
        return {node_index for node_index in self._live & self._used if not self.passes(node_index)}

    # ------------------------------------------------------------------ built once

    @cached_property
    def _live(self) -> set[int]:
        index, found = self.index, set[int]()
        pending = [name for name in index.inputs if name not in index.initializers]
        while pending:
            for node_index in index.consumers.get(pending.pop(), ()):
                if node_index not in found and index.nodes[node_index].op_type not in _SHAPES:
                    found.add(node_index)
                    node = index.nodes[node_index]  # the scale of a dynamic quantisation is a parameter, not a value
                    outputs = node.output[:1] if node.op_type == "DynamicQuantizeLinear" else node.output
                    pending += [name for name in outputs if self._known_values is None or name in self._known_values]
        return found

    @cached_property
    def _used(self) -> set[int]:
        """Indices of the nodes that an output of the model depends on; of all where it has none."""
        index, found = self.index, set[int]()
        pending = list(index.outputs) or list(index.producer)
        while pending:
            node_index = index.producer.get(pending.pop())
            if node_index is not None and node_index not in found:
                found.add(node_index)
                pending += index.reads(node_index)
        return found

    @cached_property
    def values(self) -> set[str]:
        """The tensors whose values depend on an input of the model, other than through shapes alone."""
        return {name for name in self.index.inputs if name not in self.index.initializers}.union(
            name for node_index in self._live for name in self.index.nodes[node_index].output if name
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
        for node_index in sorted(self.active):
            captured = self.index.reads(node_index).difference(self.index.nodes[node_index].input)
            for name in dict.fromkeys([*self._inputs[node_index], *map(self.root, captured)]):
                table.setdefault(name, []).append(node_index)
        return table

    @cached_property
    def _outputs(self) -> set[str]:
        return {self.root(name) for name in self.index.outputs}

    def _constant_node(self, tensor: str) -> onnx.TensorProto | None:
        node_index = self.index.producer.get(tensor)
        if node_index is None or self.index.nodes[node_index].op_type != "Constant":
            return None
        return next((a.t for a in self.index.nodes[node_index].attribute if a.name == "value"), None)
