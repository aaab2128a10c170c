"""A block's graph in another opset: exactly the same function, or not at all.

To a newer opset, ONNX's own converter raises it. That converter hardly goes back: most operators that a block is made
of have only been given more element types over the years, and it refuses even those. Here they are taken as they are,
and those whose form changed (axes that became an input, the sizes of a Split, the axis of a Softmax) follow the rules
below.

Source of what each version means: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper, version_converter
from onnx.helper import make_node

from ..errors import BlockError
from ..modelfile import payload
from .block_graph import BlockGraph, attributes, with_nodes
from .shape_check import Shape, infer, known_shapes

_SAME_SINCE: dict[str, int] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Shape"), 1),
    **dict.fromkeys(("Softplus", "Transpose", "MatMul", "SpaceToDepth", "Softsign", "Not", "LpNormalization"), 1),
    "Concat": 4,
    **dict.fromkeys(("Abs", "Ceil", "Elu", "Exp", "Floor", "HardSigmoid", "InstanceNormalization", "LeakyRelu"), 6),
    **dict.fromkeys(("Log", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sqrt", "Tanh", "Tile"), 6),
    **dict.fromkeys(("Add", "And", "Cos", "Div", "Dropout", "Mul", "Or", "PRelu", "Pow", "Sin", "Sub"), 7),
    **dict.fromkeys(("Expand", "Max", "Min", "Sum"), 8),
    **dict.fromkeys(("BatchNormalization", "Cast", "ConstantOfShape", "Erf", "Greater", "Less", "Sign", "Where"), 9),
    "Mod": 10,
    **dict.fromkeys(("AveragePool", "Clip", "DepthToSpace", "Equal", "Flatten", "Gather", "Gemm", "MaxPool"), 11),
    **dict.fromkeys(("GatherElements", "Pad", "Range", "Round", "ScatterND", "Slice"), 11),
    "Resize": 13,
    "LayerNormalization": 17,
    "Mish": 18,
}
"""Operator -> the first opset from which on its meaning is that of today, but for attributes that came later."""
_LATE_VALUES = {
    ("Pad", b"wrap"): 19,
    ("Resize", b"half_pixel_symmetric"): 19,
    ("ScatterND", b"max"): 18,
    ("ScatterND", b"min"): 18,
}
"""What an attribute may say -> the opset from which on it may."""


def with_opset(graph: BlockGraph, opset: int) -> BlockGraph:
    """The same function in another opset. BlockError, with the operator, if it cannot be said there."""
    if graph.opset == opset:
        return graph
    return (_raised if graph.opset < opset else _lowered)(graph, opset)


def _raised(graph: BlockGraph, opset: int) -> BlockGraph:
    """In a newer opset, by ONNX's converter; the constants that it adds are named after the inputs that they are."""
    try:
        model = version_converter.convert_version(graph.model, opset)
    except Exception as error:  # whatever its C++ side raises
        reason = " ".join(str(error).split()).rpartition("failed: ")[2].replace("$", "")
        raise _refused(graph, opset, f"cannot be raised to that: {reason[:160]}") from None
    stored = {node.output[0]: payload.of_constant(node) for node in model.graph.node if node.op_type == "Constant"}
    constants = {name: value for name, value in stored.items() if value is not None}
    result = with_nodes(model, (node for node in model.graph.node if node.output[0] not in constants))
    for node in result.graph.node:
        for place, name in enumerate(node.input):
            if name in constants:
                formal = onnx.defs.get_schema(node.op_type, opset, "").inputs[place].name
                node.input[place] = f"{node.output[0]}.{formal}"
                values = numpy_helper.to_array(constants[name])
                result.graph.initializer.append(numpy_helper.from_array(values, node.input[place]))
    return BlockGraph(result, graph.label)


def _lowered(graph: BlockGraph, opset: int) -> BlockGraph:
    """In an older opset, node by node, as far as is known here."""
    model = deepcopy(graph.model)
    change = Change(model, known_shapes(infer(model)), graph.opset, opset)
    nodes = []
    for node in graph.model.graph.node:
        restated = _taken(node, change)
        if restated is None:
            history = onnx.defs.get_all_schemas_with_history()
            since = min(each.since_version for each in history if each.name == node.op_type)
            why = f" (ONNX has it from opset {since} on)" if since > opset else ""
            raise _refused(graph, opset, f"its {node.op_type} cannot be said there{why}")
        nodes += restated
    model = with_nodes(model, nodes)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    return BlockGraph(model, graph.label)


def _refused(graph: BlockGraph, opset: int, reason: str) -> BlockError:
    return BlockError(
        f"{graph.label} is in opset {graph.opset} and the model in {opset}, and {reason}; export it with opset {opset}"
    )


def _taken(node: NodeProto, change: Change) -> list[NodeProto] | None:
    """What the node is in the other opset; None if that is not known here."""
    before = onnx.defs.get_schema(node.op_type, change.old, "")
    after = onnx.defs.get_schema(node.op_type, change.new, "") if onnx.defs.has(node.op_type, change.new, "") else None
    if after is not None and before.since_version == after.since_version:
        return [node]
    if rule := RULES.get(node.op_type):
        return rule(node, change)
    known = change.new >= _SAME_SINCE.get(node.op_type, change.old)
    if not known or after is None or len(node.input) > after.max_input:
        return None
    restated = deepcopy(node)
    del restated.attribute[:]
    for attribute in node.attribute:
        if attribute.name in after.attributes:
            restated.attribute.append(attribute)
        elif not _is_default(attribute, before):  # one that came later, and says something
            return None
        if change.new < _LATE_VALUES.get((node.op_type, attribute.s), 0):
            return None
    return [restated]


def _is_default(attribute: onnx.AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    default = schema.attributes[attribute.name].default_value
    value, usual = (onnx.helper.get_attribute_value(each) if each.type else None for each in (attribute, default))
    return bool(value == usual)


# ---------------------------------------------------------------------- rules

_NEGATIVE_SINCE = 11
"""Up to then an axis counts from the front."""
_SAME_AXES = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_AXES_AS_INPUT = {
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceSum"), 13),
    **dict.fromkeys((f"Reduce{kind}" for kind in _SAME_AXES), 18),
}
"""Operator -> the opset in which its axes became an input."""
_SPLIT_AS_INPUT = 13
_ONE_AXIS = 13
"""From here on a Softmax is along its axis; before, along that and all after it."""
_HARDSWISH = 14


@dataclass(frozen=True)
class Change:
    """From the opset ``old`` back to ``new``, in a model that may get more constants; ``shapes``: of its tensors."""

    model: ModelProto
    shapes: dict[str, Shape]
    old: int
    new: int

    def second(self, node: NodeProto) -> list[int] | None:
        """The whole numbers in the second input of a node; [] where it has none, None for what is computed."""
        if not any(node.input[1:2]):
            return []
        tensor = next((each for each in self.model.graph.initializer if each.name == node.input[1]), None)
        return None if tensor is None else [int(each) for each in numpy_helper.to_array(tensor).ravel()]

    def rank(self, name: str) -> int | None:
        """Number of dimensions of a tensor."""
        return len(self.shapes[name]) if name in self.shapes else None

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


def _with_axes(node: NodeProto, change: Change) -> Restated:
    moved, values = _AXES_AS_INPUT[node.op_type], attributes(node)
    if change.new >= moved:
        return [node]
    noop = values.pop("noop_with_empty_axes", 0)
    axes = change.second(node) if change.old >= moved else values.pop("axes", [])
    rank = change.rank(node.output[0] if node.op_type == "Unsqueeze" else node.input[0])
    axes = None if axes is None else change.counted(axes, rank)
    if axes is None or (noop and not axes):
        return None
    if axes:
        values["axes"] = axes
    return [make_node(node.op_type, node.input[:1], node.output, **values)]


def _split(node: NodeProto, change: Change) -> Restated:
    values = attributes(node)
    sizes = change.second(node) if change.old >= _SPLIT_AS_INPUT else values.get("split", [])
    axis = change.counted([values.get("axis", 0)], change.rank(node.input[0]))
    count = values.get("num_outputs")
    if sizes is None or axis is None:
        return None
    if count is not None and count != len(node.output):
        return None
    if count is not None:  # the last part may be smaller than the others; before, all are of one size
        size = change.shapes[node.input[0]][axis[0]] if node.input[0] in change.shapes else None
        if size is None:
            return None
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)] if size % count else []
    if not sizes or change.new < _SPLIT_AS_INPUT:
        return [make_node("Split", node.input[:1], node.output, axis=axis[0], split=sizes or None)]
    name = f"{node.output[0]}.split"
    change.model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
    return [make_node("Split", [node.input[0], name], node.output, axis=axis[0])]


def _softmax(node: NodeProto, change: Change) -> Restated:
    rank = change.rank(node.input[0])
    if rank is None:
        return None
    axis = attributes(node).get("axis", -1 if change.old >= _ONE_AXIS else 1) % rank
    if axis == rank - 1 or change.new >= _ONE_AXIS or change.old < _ONE_AXIS:
        return [make_node(node.op_type, node.input, node.output, axis=axis)]
    order = [place for place in range(rank) if place != axis] + [axis]
    back = [order.index(place) for place in range(rank)]
    last, result = f"{node.output[0]}.last", f"{node.output[0]}.result"
    return [
        make_node("Transpose", node.input, [last], perm=order),
        make_node(node.op_type, [last], [result], axis=rank - 1),
        make_node("Transpose", [result], node.output, perm=back),
    ]


def _reshape(node: NodeProto, change: Change) -> Restated:
    """A 0 copies a size, unless ``allowzero`` is set; without a 0 that says nothing."""
    if attributes(node).get("allowzero"):
        wanted = change.second(node)
        if wanted is None or 0 in wanted:
            return None
    return [make_node("Reshape", node.input, node.output)]


def _hardswish(node: NodeProto, change: Change) -> Restated:
    """By its definition: x * HardSigmoid(x) with alpha = 1/6 and beta = 1/2."""
    if change.new >= _HARDSWISH:
        return [node]
    gate = f"{node.output[0]}.gate"
    return [
        make_node("HardSigmoid", node.input, [gate], alpha=1 / 6, beta=0.5),
        make_node("Mul", [node.input[0], gate], node.output),
    ]


RULES: dict[str, Callable[[NodeProto, Change], Restated]] = {
    **dict.fromkeys(_AXES_AS_INPUT, _with_axes),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    "Split": _split,
    "Reshape": _reshape,
    "HardSwish": _hardswish,
}
