"""Whether the shapes within a graph fit together.

ONNX's own inference says so for most operators, where it is asked to be strict. It takes the channels of a convolution
and of a normalisation, the slope of a PRelu and the number of elements of a Reshape on trust; those are looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import zip_longest
from math import prod

from onnx import ModelProto, NodeProto, numpy_helper

from ..errors import BlockError
from ..graph import inference
from .block_graph import BlockGraph, attributes

Shape = list[int | None]
_Shapes = Sequence[Shape | None]
"""of the inputs of a node, in order; None for one that is not known at all"""


def misfit(graph: BlockGraph) -> str:
    """Why the nodes of a graph cannot work on the shapes that arrive at them; "" if nothing speaks against it."""
    try:
        shapes = known_shapes(infer(graph.model, strict=True))
    except BlockError as error:
        return error.message
    for node in graph.model.graph.node:
        rule = _RULES.get(node.op_type)
        reason = rule(node, [shapes.get(name) for name in node.input], graph) if rule else ""
        if reason:
            return f"{node.op_type}: {reason}"
    return ""


def infer(model: ModelProto, *, strict: bool = False) -> ModelProto:
    """With shapes and element types of all tensors, as far as ONNX can tell. BlockError, with the reason alone, for
    what it refuses; ``strict``: for misfits as well.
    """
    del model.graph.value_info[:]
    try:
        return inference.infer(model, strict=strict)
    except Exception as error:  # its own InferenceError, and what its checker raises
        raise BlockError(_in_short(str(error))) from None


def known_shapes(inferred: ModelProto) -> dict[str, Shape]:
    """The shapes that inference found, by tensor; None for a size that it did not."""
    graph = inferred.graph
    found: dict[str, Shape] = {
        value.name: [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return found | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def _in_short(message: str) -> str:
    """ONNX's reason without its brackets: ``Mul: incompatible dimensions``."""
    first = next((line for line in message.splitlines() if "op_type:" in line), message)
    operator = re.search(r"op_type:\s*(\w+)", first)
    reason = first.rpartition("] ")[2].strip().rstrip(".")
    reason = reason[:1].lower() + reason[1:160]
    return f"{operator[1]}: {reason}" if operator else reason


def _differ(*sizes: int | None) -> bool:
    return len({size for size in sizes if size is not None}) > 1


def _at(shapes: _Shapes, place: int, axis: int) -> int | None:
    """A size of an input; None if it is not known, or not there."""
    shape = shapes[place] if place < len(shapes) else None
    return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None


def _convolution(node: NodeProto, shapes: _Shapes, graph: BlockGraph) -> str:
    group = attributes(node).get("group", 1)
    makes, takes = _at(shapes, 1, 0), _at(shapes, 1, 1)
    takes = takes * group if takes is not None else None
    if node.op_type == "ConvTranspose":
        makes, takes = takes, makes
    if _differ(takes, _at(shapes, 0, 1)):
        return f"its weights are for {takes} channels, and {_at(shapes, 0, 1)} arrive"
    bias = _at(shapes, 2, 0)
    return f"its bias has {bias} elements for {makes} channels" if _differ(bias, makes) else ""


def _normalisation(node: NodeProto, shapes: _Shapes, graph: BlockGraph) -> str:
    per_group = node.op_type == "GroupNormalization" and graph.opset < 21
    arriving = attributes(node).get("num_groups", 1) if per_group else _at(shapes, 0, 1)
    wrong = next((size for size in (_at(shapes, 1, 0), _at(shapes, 2, 0)) if _differ(size, arriving)), None)
    what = "groups" if per_group else "channels"
    return "" if wrong is None else f"its weights are for {wrong} {what}, and {arriving} arrive"


def _broadcast_to_first(node: NodeProto, shapes: _Shapes, graph: BlockGraph) -> str:
    """PRelu and LayerNormalization: what comes second is stretched to the first, and never the other way round."""
    x, *others = shapes
    if x is None:
        return ""
    for other in (given for given in others if given is not None):
        pairs = list(zip_longest(reversed(x), reversed(other), fillvalue=1))
        if len(other) > len(x) or any(b != 1 and _differ(a, b) for a, b in pairs):
            return f"its weights have the shape {other}, and what arrives {x}"
    return ""


def _reshape(node: NodeProto, shapes: _Shapes, graph: BlockGraph) -> str:
    constants = {tensor.name: tensor for tensor in graph.model.graph.initializer}
    before = shapes[0]
    if before is None or None in before or node.input[1] not in constants:
        return ""
    wanted = numpy_helper.to_array(constants[node.input[1]]).ravel().tolist()
    copies = not attributes(node).get("allowzero")
    after = [before[i] if not size and copies and i < len(before) else size for i, size in enumerate(wanted)]
    if -1 in after or prod(size or 0 for size in before) == prod(size or 0 for size in after):
        return ""  # with a -1 in it, ONNX looks itself
    return f"{before} cannot be seen as {after}"


_RULES: dict[str, Callable[[NodeProto, _Shapes, BlockGraph], str]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization"), _normalisation),
    **dict.fromkeys(("PRelu", "LayerNormalization"), _broadcast_to_first),
    "Reshape": _reshape,
}
