"""A skeleton with the sizes of one site, and everything that follows from them and from constants computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from ..errors import BlockError
from ..feature_map import FeatureMap
from ..graph.shape_constants import Array, evaluate
from .block_graph import Skeleton
from .shape_check import Shape, known_shapes, misfit

_ROUNDS = 8
_LARGEST = 1 << 22
"""Elements of a constant that is worth computing ahead."""
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_MOST_COUNTS = 16


def with_sizes(skeleton: Skeleton, feature: FeatureMap) -> Skeleton:
    """With the site's sizes, and everything that follows from them and from constants computed.

    BlockError if the graph is then known not to work, or to give another shape.
    """
    model = _sized(skeleton, feature)
    if reason := misfit(model):
        raise BlockError(_unfit(skeleton, feature, reason))
    if shape := _other_shape(model, feature):
        raise BlockError(f"a block keeps the shape of its input; {skeleton.label} makes {shape} of {_shape(feature)}")
    return Skeleton(_without_identities(model), skeleton.label)


def _sized(skeleton: Skeleton, feature: FeatureMap) -> ModelProto:
    model = _copy(skeleton.model)
    for dimension, size, name in zip(
        model.graph.input[0].type.tensor_type.shape.dim, _shape(feature), "NCHW", strict=True
    ):
        dimension.Clear()
        if size is None:
            dimension.dim_param = name
        else:
            dimension.dim_value = size
    for _ in range(_ROUNDS):
        model, changed = _folded(model)
        if not changed:
            break
    return model


def _shape(feature: FeatureMap) -> Shape:
    return [feature.batch, feature.channels, feature.height, feature.width]


def _other_shape(model: ModelProto, feature: FeatureMap) -> Shape | None:
    """The shape of the output, if that is known not to be the site's."""
    kind = infer(model).graph.output[0].type.tensor_type
    if not kind.HasField("shape"):
        return None
    shape = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    pairs = zip(shape, _shape(feature), strict=False)
    return shape if len(shape) != 4 or any(a != b for a, b in pairs if a is not None and b is not None) else None


def _unfit(skeleton: Skeleton, feature: FeatureMap, reason: str) -> str:
    """What to say of a graph that does not fit: the number of channels that it is made for, where its weights tell."""
    counts = {size for shape in skeleton.parameters.values() for size in shape} - {feature.channels}
    fitting = []
    for count in sorted(counts)[:_MOST_COUNTS]:
        other = replace(feature, channels=count)
        model = _sized(skeleton, other)
        if not misfit(model) and not _other_shape(model, other):
            fitting.append(count)
    if len(fitting) == 1:
        return f"{feature.label} has {feature.channels} channels; {skeleton.label} is made for {fitting[0]}"
    shape = ", ".join("?" if size is None else str(size) for size in _shape(feature))
    return f"{skeleton.label} does not work on {feature.label}, [{shape}]: {reason}"


def infer(model: ModelProto) -> ModelProto:
    """With shapes and element types of all tensors, as far as ONNX can tell."""
    del model.graph.value_info[:]
    result: ModelProto = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return result


def _folded(model: ModelProto) -> tuple[ModelProto, bool]:
    """One pass of computing what is constant; whether anything was."""
    shapes = known_shapes(infer(model))
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    left, new = [], dict[str, Array]()
    for node in model.graph.node:
        values = _value(node, known, shapes, model)
        if values is None or any(name == model.graph.output[0].name for name in node.output):
            left.append(node)
            continue
        new |= values
        known |= values
    result = _copy(model)
    del result.graph.node[:]
    result.graph.node.extend(left)
    read = {name for node in left for name in node.input}
    del result.graph.initializer[:]
    result.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    result.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in new.items() if name in read)
    return result, len(left) < len(model.graph.node)


def _value(
    node: NodeProto, known: dict[str, Array], shapes: dict[str, Shape], model: ModelProto
) -> dict[str, Array] | None:
    """What a node gives, if that follows from constants and shapes."""
    if node.op_type == "Shape":
        attributes = {each.name: each.i for each in node.attribute}
        part = shapes.get(node.input[0], [None])[attributes.get("start", 0) : attributes.get("end")]
        return None if None in part else {node.output[0]: np.array(part, np.int64)}
    if node.op_type in _RANDOM or not all(name in known for name in node.input if name):
        return None
    size = [d for name in node.output for d in shapes.get(name, [])]
    if any(d is not None and d > _LARGEST for d in size):
        return None
    values = evaluate(node, {name: known[name] for name in node.input if name}, model.opset_import)
    return None if values is None or any(value.size > _LARGEST for value in values.values()) else values


def _without_identities(model: ModelProto) -> ModelProto:
    """Without the nodes that only pass a tensor on, and those that nothing reads."""
    result = _copy(model)
    del result.graph.node[:]
    same: dict[str, str] = {}
    final = model.graph.output[0].name
    for node in model.graph.node:
        copied = NodeProto()
        copied.CopyFrom(node)
        for place, name in enumerate(copied.input):
            copied.input[place] = same.get(name, name)
        passes = node.op_type == "Identity" or (node.op_type == "Dropout" and not any(node.output[1:]))
        if passes and node.output[0] != final and not _trains(node):
            same[node.output[0]] = copied.input[0]
        else:
            result.graph.node.append(copied)
    needed, kept = {final}, []
    for node in reversed(result.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    kept.reverse()
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def _trains(node: NodeProto) -> bool:
    """Whether a Dropout has inputs that may set it to training."""
    return node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])


def _copy(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied
