"""Operators whose form changed between opsets, said in another one: axes that became an input, sizes of a Split, the
axis of a Softmax. Exactly, or not at all.

Source of what each version means: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from .shape_check import Shape

_NEGATIVE_SINCE = 11
"""Up to then an axis counts from the front."""
_SAME_AXES = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_AXES_AS_INPUT = {
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceSum"), 13),
    **dict.fromkeys((f"Reduce{kind}" for kind in _SAME_AXES), 18),
}
"""Operator -> the opset in which its axes became an input."""
_SPLIT_AS_INPUT, _NUM_OUTPUTS = 13, 18
_ONE_AXIS = 13
"""From here on a Softmax is along its axis; before, along that and all behind it."""
_HARDSWISH = 14


@dataclass(frozen=True)
class Change:
    """From the opset ``old`` to ``new``, in a model that may get more constants; ``shapes``: of its tensors."""

    model: ModelProto
    shapes: dict[str, Shape]
    old: int
    new: int

    def crosses(self, opset: int) -> bool:
        """Whether one of the two lies before an opset and the other does not."""
        return (self.old < opset) != (self.new < opset)

    def constant(self, name: str) -> list[int] | None:
        """The whole numbers in a constant; None for what is computed."""
        for tensor in self.model.graph.initializer:
            if tensor.name == name:
                return [int(each) for each in numpy_helper.to_array(tensor).ravel()]
        return None

    def given(self, node: NodeProto, place: int) -> list[int] | None:
        """The same for an input of a node that may be absent: [] for that."""
        name = node.input[place] if len(node.input) > place else ""
        return self.constant(name) if name else []

    def add(self, name: str, values: Sequence[int]) -> str:
        """A further constant; returns its name."""
        self.model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def rank(self, name: str) -> int | None:
        """Number of dimensions of a tensor."""
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)

    def counted(self, axes: Sequence[int], rank: int | None) -> list[int] | None:
        """Axes as the new opset counts them, in order up to then (older inference takes that for granted); None if that
        takes the unknown number of dimensions.
        """
        if self.new >= _NEGATIVE_SINCE:
            return list(axes)
        if rank is None:
            return sorted(axes) if all(axis >= 0 for axis in axes) else None
        return sorted(axis % rank for axis in axes)


Restated = list[NodeProto] | None
"""what stands for a node in the other opset; None if that is not known here"""


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _with_axes(node: NodeProto, change: Change) -> Restated:
    moved, attributes = _AXES_AS_INPUT[node.op_type], _attributes(node)
    noop = attributes.pop("noop_with_empty_axes", 0) if change.crosses(moved) else 0
    axes = change.given(node, 1) if change.old >= moved else attributes.pop("axes", [])
    if change.old >= moved and change.new >= moved:
        return [node]
    rank = change.rank(node.output[0] if node.op_type == "Unsqueeze" else node.input[0])
    axes = None if axes is None else change.counted(axes, rank)
    if axes is None or (noop and not axes):
        return None
    inputs = [node.input[0]]
    if axes and change.new >= moved:
        inputs.append(change.add(f"{node.output[0]}.axes", axes))
    elif axes:
        attributes["axes"] = axes
    return [onnx.helper.make_node(node.op_type, inputs, node.output, **attributes)]


def _split(node: NodeProto, change: Change) -> Restated:
    attributes = _attributes(node)
    sizes = change.given(node, 1) if change.old >= _SPLIT_AS_INPUT else attributes.pop("split", [])
    axis = change.counted([attributes.pop("axis", 0)], change.rank(node.input[0]))
    count = attributes.pop("num_outputs", None)
    if sizes is None or axis is None:
        return None
    if count is not None:  # the last part may be smaller than the others; before, all are of one size
        shape = change.shapes.get(node.input[0])
        size = shape[axis[0]] if shape is not None else None
        if size is None:
            return None
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)] if size % count else []
    inputs = [node.input[0]]
    if sizes and change.new >= _SPLIT_AS_INPUT:
        inputs.append(change.add(f"{node.output[0]}.split", sizes))
    elif sizes:
        attributes["split"] = sizes
    elif change.new >= _NUM_OUTPUTS:
        attributes["num_outputs"] = len(node.output)
    return [onnx.helper.make_node("Split", inputs, node.output, axis=axis[0], **attributes)]


def _softmax(node: NodeProto, change: Change) -> Restated:
    rank = change.rank(node.input[0])
    if rank is None:
        return None
    axis = _attributes(node).get("axis", -1 if change.old >= _ONE_AXIS else 1) % rank
    if axis == rank - 1 or not change.crosses(_ONE_AXIS):
        return [onnx.helper.make_node(node.op_type, node.input, node.output, axis=axis)]
    if change.new >= _ONE_AXIS:
        return None
    order = [place for place in range(rank) if place != axis] + [axis]
    back = [order.index(place) for place in range(rank)]
    last, made = f"{node.output[0]}.last", f"{node.output[0]}.made"
    return [
        onnx.helper.make_node("Transpose", node.input, [last], perm=order),
        onnx.helper.make_node(node.op_type, [last], [made], axis=rank - 1),
        onnx.helper.make_node("Transpose", [made], node.output, perm=back),
    ]


def _reshape(node: NodeProto, change: Change) -> Restated:
    """A 0 copies a size, unless ``allowzero`` is set; without a 0 that says nothing."""
    attributes = _attributes(node)
    if attributes.pop("allowzero", 0):
        wanted = change.constant(node.input[1])
        if wanted is None or 0 in wanted:
            return None
    return [onnx.helper.make_node("Reshape", node.input, node.output, **attributes)]


def _hardswish(node: NodeProto, change: Change) -> Restated:
    """By its definition: x * HardSigmoid(x) with alpha = 1/6 and beta = 1/2."""
    if change.new >= _HARDSWISH:
        return [node]
    gate = f"{node.output[0]}.gate"
    return [
        onnx.helper.make_node("HardSigmoid", node.input, [gate], alpha=1 / 6, beta=0.5),
        onnx.helper.make_node("Mul", [node.input[0], gate], node.output),
    ]


RULES: dict[str, Callable[[NodeProto, Change], Restated]] = {
    **dict.fromkeys(_AXES_AS_INPUT, _with_axes),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    "Split": _split,
    "Reshape": _reshape,
    "HardSwish": _hardswish,
}
