"""Values that a model computes from constants alone, as far as shapes depend on them.

An export that nobody simplified computes paddings and target shapes with chains of small nodes, which shape
inference does not follow. Here such chains are evaluated, as far as they consist of the operators at the end of this
file, and put into a copy of the model as initializers. (Importing ONNX's evaluator takes longer than a whole edit.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

Value: TypeAlias = np.ndarray[Any, Any]
Inputs: TypeAlias = list[Any]
Attributes: TypeAlias = dict[str, Any]

_SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 3),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}


def fold_shapes(model: onnx.ModelProto) -> None:
    """Replace the inputs above that ``model`` computes from constants by initializers, in place.

    ``model`` is a copy to infer shapes on: the large tensors in it have no data. What cannot be evaluated stays as
    it is.
    """
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output if name}
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    values: dict[str, Value | None] = {}
    for node in graph.node:
        for slot in _SHAPE_INPUTS.get(node.op_type, ()):
            name = node.input[slot] if slot < len(node.input) else ""
            if name in producer and producer[name].op_type != "Constant" and name not in values:
                value = _evaluate(name, producer, initializers, values)
                if value is not None:
                    tensor = numpy_helper.from_array(value, name)
                    graph.initializer.append(tensor)
                    producer[name].output[list(producer[name].output).index(name)] = f"{name} (folded)"


def _evaluate(
    wanted: str,
    producer: dict[str, onnx.NodeProto],
    initializers: dict[str, onnx.TensorProto],
    values: dict[str, Value | None],
) -> Value | None:
    """The value of a tensor, or None if it depends on an input of the model or cannot be evaluated."""
    pending, entered = [wanted], set[str]()
    while pending:
        name = pending[-1]
        if name in values:
            pending.pop()
            continue
        node = producer.get(name)
        if node is None or node.op_type == "Constant":
            values[name] = _data(initializers.get(name) if node is None else node.attribute[0].t)
            continue
        missing = [each for each in node.input if each and each not in values]
        if missing and name not in entered:
            entered.add(name)
            pending += missing
            continue
        inputs = {each: values.get(each) for each in node.input if each}  # still missing: a cycle
        known = {each: value for each, value in inputs.items() if value is not None}
        values.update(_run(node, known) if len(known) == len(inputs) else dict.fromkeys(node.output))
    return values[wanted]


def _data(tensor: onnx.TensorProto | None) -> Value | None:
    if tensor is None or not tensor.data_type or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except Exception:  # a tensor whose payload was left out of the copy
        return None


def _run(node: onnx.NodeProto, inputs: Mapping[str, Value]) -> dict[str, Value | None]:
    """What a node gives for these inputs; None for an operator that is not among those below."""
    operator = _OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    if operator is None or len(node.output) != 1:
        return dict.fromkeys(node.output)
    try:
        return {node.output[0]: operator([inputs[name] if name else None for name in node.input], attributes)}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError):  # not what ONNX prescribes
        return dict.fromkeys(node.output)


def _cast(inputs: Inputs, attributes: Attributes) -> Value:
    return np.asarray(inputs[0]).astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _divide(inputs: Inputs, attributes: Attributes) -> Value:
    a, b = inputs
    quotient = np.asarray(np.divide(a, b))
    return np.trunc(quotient).astype(a.dtype) if a.dtype.kind in "iu" else quotient  # integers round towards zero


def _filled(inputs: Inputs, attributes: Attributes) -> Value:
    value = numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    if int(np.prod(inputs[0])) > _LARGEST:
        raise ValueError("too large to be a shape")
    return np.full(inputs[0], value[0], value.dtype)


def _reshape(inputs: Inputs, attributes: Attributes) -> Value:
    shape = inputs[1].tolist()
    if not attributes.get("allowzero"):
        shape = [old if new == 0 else new for new, old in zip_longest(shape, inputs[0].shape[: len(shape)])]
    return np.reshape(inputs[0], shape)


def _slice(inputs: Inputs, attributes: Attributes) -> Value:
    x, starts, ends, axes, steps = [*inputs, None, None, None, None][:5]
    starts, ends = (attributes["starts"], attributes["ends"]) if starts is None else (starts.tolist(), ends.tolist())
    axes = attributes.get("axes", range(len(starts))) if axes is None else axes.tolist()
    cuts: list[slice] = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, [1] * len(starts) if steps is None else steps, strict=True):
        cuts[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, int(step))
    return np.asarray(x[tuple(cuts)])


def _axes(inputs: Inputs, attributes: Attributes) -> tuple[int, ...]:
    return tuple(inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else attributes["axes"])


_LARGEST = 1 << 16
_OPERATORS: dict[str, Callable[[Inputs, Attributes], Value]] = {
    "Add": lambda i, a: i[0] + i[1],
    "Cast": _cast,
    "Concat": lambda i, a: np.concatenate(i, axis=a["axis"]),
    "ConstantOfShape": _filled,
    "Div": _divide,
    "Equal": lambda i, a: np.equal(i[0], i[1]),
    "Gather": lambda i, a: np.take(i[0], i[1], axis=a.get("axis", 0)),
    "Identity": lambda i, a: i[0],
    "Mul": lambda i, a: i[0] * i[1],
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": lambda i, a: np.squeeze(i[0], _axes(i, a)),
    "Sub": lambda i, a: i[0] - i[1],
    "Transpose": lambda i, a: np.transpose(i[0], a.get("perm")),
    "Unsqueeze": lambda i, a: np.expand_dims(i[0], _axes(i, a)),
    "Where": lambda i, a: np.asarray(np.where(i[0], i[1], i[2])),
}
