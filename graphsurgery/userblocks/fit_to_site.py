"""A block's graph made to fit one site: its sizes, its opset, its element type."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from math import inf, prod

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import BlockError
from ..feature_map import Array, FeatureMap
from ..graph.output_sizes import BROADCAST, NO_LARGER, most_elements
from ..graph.reference import evaluate
from ..messages import shape_text
from ..modelfile import limits
from .block_graph import BlockGraph, attributes, with_nodes
from .opset_conversion import with_opset
from .shape_check import Shape, infer, known_shapes, misfit

_ROUNDS = 8
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_MOST_COUNTS = 16
_QUICK = NO_LARGER | BROADCAST | {"Concat", "ConstantOfShape", "Expand", "Gather", "Pad", "Range", "Split", "Tile"}
"""operators that ONNX's reference computes array by array; others it may compute element by element"""
_SLOW = 1 << 10
"""how many times longer an element takes there"""


def fitted(graph: BlockGraph, feature: FeatureMap, opset: int) -> BlockGraph:
    """The same function in the model's opset and the site's element type, with what follows from the sizes computed.

    BlockError if there is no such form.
    """
    graph.check(feature)
    return with_dtype(with_opset(with_sizes(graph, feature), opset), feature.dtype)


# ---------------------------------------------------------------------- sizes


def with_sizes(graph: BlockGraph, feature: FeatureMap) -> BlockGraph:
    """With the site's sizes, and everything that follows from them and from constants computed.

    BlockError if the graph is then known not to work, or to give another shape.
    """
    sized = _sized(graph, feature)
    if reason := misfit(sized) or _enormous(sized):
        raise BlockError(_unfit(graph, feature, reason))
    if shape := _other_shape(sized, feature):
        raise BlockError(f"a block keeps the shape of its input; {graph.label} makes {shape} of {_shape(feature)}")
    return BlockGraph(_pruned(sized.model), graph.label)


def _sized(graph: BlockGraph, feature: FeatureMap) -> BlockGraph:
    model = deepcopy(graph.model)
    shape = [name if size is None else size for size, name in zip(_shape(feature), "NCHW", strict=True)]
    x = onnx.helper.make_tensor_value_info(graph.x.name, graph.x.type.tensor_type.elem_type, shape)
    model.graph.input[0].CopyFrom(x)
    budget = _Budget()
    try:
        for _ in range(_ROUNDS):
            count = len(model.graph.node)
            model = _folded(model, budget)
            if len(model.graph.node) == count:
                break
    except BlockError as error:
        raise BlockError(f"{graph.label} is not a valid model: {error.message}") from None
    return BlockGraph(model, graph.label)


def _shape(feature: FeatureMap) -> Shape:
    return list(feature.shape)


def _other_shape(graph: BlockGraph, feature: FeatureMap) -> Shape | None:
    """The shape of the output, if that is known not to be the site's."""
    shape = known_shapes(infer(graph.model)).get(graph.model.graph.output[0].name)
    if shape is None:
        return None
    pairs = zip(shape, _shape(feature), strict=False)
    return shape if len(shape) != 4 or any(a != b for a, b in pairs if a is not None and b is not None) else None


def _enormous(graph: BlockGraph) -> str:
    """What to say of a tensor that no runtime can hold; "" if none is known to be."""
    for name, shape in known_shapes(infer(graph.model)).items():
        if prod(size or 1 for size in shape) > limits.ELEMENTS:
            return f"its tensor {name} would be {shape_text(shape)}"
    return ""


def _unfit(graph: BlockGraph, feature: FeatureMap, reason: str) -> str:
    """What to say of a graph that does not fit: the number of channels that it is made for, where its weights tell."""
    counts = {size for shape in graph.parameters.values() for size in shape} - {feature.channels}
    fitting = []
    for count in sorted(counts)[:_MOST_COUNTS]:
        other = replace(feature, channels=count)
        sized = _sized(graph, other)
        if not misfit(sized) and not _enormous(sized) and not _other_shape(sized, other):
            fitting.append(count)
    if len(fitting) == 1:
        return f"{feature.label} has {feature.channels} channels; {graph.label} is made for {fitting[0]}"
    return f"{graph.label} does not work on {feature.label}, {shape_text(_shape(feature))}: {reason}"


# ---------------------------------------------------------------------- constants


class _Budget:
    """The work that computing constants ahead may still be."""

    def __init__(self) -> None:
        self._left = limits.FOLDING_WORK

    def allows(self, node: NodeProto, inputs: dict[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]) -> bool:
        """Whether to compute a node: its outputs are known to be small, and there is work left, which is taken off.

        BlockError if they are known to be so large that nobody should.
        """
        quick = node.op_type in _QUICK
        most = limits.FOLDED_ELEMENTS if quick else limits.SHAPE_ELEMENTS
        given, made = sum(value.size for value in inputs.values()), most_elements(node, inputs, opsets)
        if limits.WEIGHT_ELEMENTS < made < inf:
            raise BlockError(
                f"{node.op_type} makes a constant of {made:,} elements; {limits.WEIGHT_ELEMENTS:,} are taken"
            )
        if not (made <= most and given <= most):
            return False
        self._left -= int(given + made) * (1 if quick else _SLOW)
        return self._left >= 0


def _folded(model: ModelProto, budget: _Budget) -> ModelProto:
    """One pass of computing what is constant."""
    shapes = known_shapes(infer(model))
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    left = []
    for node in model.graph.node:
        values = None if model.graph.output[0].name in node.output else _value(node, known, shapes, model, budget)
        if values is None:
            left.append(node)
        known |= values or {}
    result = with_nodes(model, left)
    consumed = {name for node in left for name in node.input}
    del result.graph.initializer[:]
    result.graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in known if name in consumed)
    return result


def _value(
    node: NodeProto, known: dict[str, Array], shapes: dict[str, Shape], model: ModelProto, budget: _Budget
) -> dict[str, Array] | None:
    """What a node gives, if that follows from constants and shapes."""
    if node.op_type == "Shape":
        bounds = attributes(node)
        part = shapes.get(node.input[0], [None])[bounds.get("start", 0) : bounds.get("end")]
        return None if None in part else {node.output[0]: np.array(part, np.int64)}
    names = set(filter(None, node.input))
    if node.op_type in _RANDOM or not known.keys() >= names:
        return None
    given = {name: known[name] for name in names}
    return evaluate(node, given, model.opset_import) if budget.allows(node, given, model.opset_import) else None


def _pruned(model: ModelProto) -> ModelProto:
    """Without the nodes that only pass a tensor on, and those that nothing consumes."""
    final = model.graph.output[0].name
    same: dict[str, str] = {}
    nodes = []
    for node in deepcopy(model).graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if _passes_on(node) and node.output[0] != final:
            same[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    needed, kept = {final}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return with_nodes(model, reversed(kept))


def _passes_on(node: NodeProto) -> bool:
    """Whether a node gives what it gets: an Identity, or a Dropout without a mask that cannot be set to training."""
    if node.op_type == "Dropout":
        return not any(node.output[1:]) and not any(node.input[2:])
    return node.op_type == "Identity"


# ---------------------------------------------------------------------- element type


def with_dtype(graph: BlockGraph, dtype: str) -> BlockGraph:
    """With every tensor of the feature map's element type in another one. BlockError if an operator lacks it."""
    old = graph.x.type.tensor_type.elem_type
    new = FeatureMap(1, None, None, dtype).onnx_type
    if old == new:
        return graph
    model = deepcopy(graph.model)
    fixed = graph.fixed_names
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == old:
            value.type.tensor_type.elem_type = new
    for tensor in model.graph.initializer:
        if tensor.data_type == old and tensor.name not in fixed:
            tensor.CopyFrom(_cast(tensor, dtype))
    for node in model.graph.node:
        _check_supported(node, graph, dtype)
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == old:
                attribute.i = new
            elif attribute.HasField("t") and attribute.t.data_type == old:
                attribute.t.CopyFrom(_cast(attribute.t, dtype))
    del model.graph.value_info[:]
    return BlockGraph(model, graph.label)


def _check_supported(node: NodeProto, graph: BlockGraph, dtype: str) -> None:
    schema = onnx.defs.get_schema(node.op_type, graph.opset, "")
    name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    allowed = {kind for constraint in schema.type_constraints for kind in constraint.allowed_type_strs}
    if "tensor(float)" in allowed and f"tensor({name})" not in allowed:
        raise BlockError(
            f"the site is {dtype}, {graph.label} is {graph.dtype}, and ONNX has no {node.op_type} for {dtype} at "
            f"opset {graph.opset}"
        )


def _cast(tensor: TensorProto, dtype: str) -> TensorProto:
    values = numpy_helper.to_array(tensor).astype(FeatureMap(1, None, None, dtype).numpy_dtype)
    return numpy_helper.from_array(values, tensor.name)
