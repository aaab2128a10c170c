"""A skeleton made to fit one site: its opset, its element type, its sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import BlockError
from ..featuremap import FeatureMap
from .opsets import with_opset
from .skeleton import Skeleton, fixed_names

Array = np.ndarray[Any, Any]
_ROUNDS = 8
_LARGEST = 1 << 22
"""Elements of a constant that is worth computing ahead."""
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


def fitted(skeleton: Skeleton, feature: FeatureMap, opset: int) -> Skeleton:
    """The same function in the model's opset and the site's element type, with what follows from the sizes computed.

    BlockError if there is no such form.
    """
    skeleton.check(feature)
    return with_dtype(with_opset(with_sizes(skeleton, feature), opset), feature.dtype)


def with_dtype(skeleton: Skeleton, dtype: str) -> Skeleton:
    """With every tensor of the feature map's element type in another one. BlockError if an operator lacks it."""
    old = skeleton.x.type.tensor_type.elem_type
    new = FeatureMap(1, None, None, dtype).onnx_type
    if old == new:
        return skeleton
    model = _copy(skeleton.model)
    fixed = fixed_names(model.graph.node, model)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == old:
            value.type.tensor_type.elem_type = new
    for tensor in model.graph.initializer:
        if tensor.data_type == old and tensor.name not in fixed:
            tensor.CopyFrom(_cast(tensor, dtype))
    for node in model.graph.node:
        _check_supported(node, skeleton, dtype)
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == old:
                attribute.i = new
            elif attribute.HasField("t") and attribute.t.data_type == old:
                attribute.t.CopyFrom(_cast(attribute.t, dtype))
    del model.graph.value_info[:]
    return Skeleton(model, skeleton.label)


def _check_supported(node: NodeProto, skeleton: Skeleton, dtype: str) -> None:
    schema = onnx.defs.get_schema(node.op_type, skeleton.opset, "")
    name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    allowed = {kind for constraint in schema.type_constraints for kind in constraint.allowed_type_strs}
    if "tensor(float)" in allowed and f"tensor({name})" not in allowed:
        raise BlockError(
            f"the site is {dtype}, {skeleton.label} is {skeleton.dtype}, and ONNX has no {node.op_type} for {dtype} at "
            f"opset {skeleton.opset}"
        )


def _cast(tensor: TensorProto, dtype: str) -> TensorProto:
    values = numpy_helper.to_array(tensor).astype(FeatureMap(1, None, None, dtype).numpy_dtype)
    return numpy_helper.from_array(values, tensor.name)


def with_sizes(skeleton: Skeleton, feature: FeatureMap) -> Skeleton:
    """With the site's sizes, and everything that follows from them and from constants computed. BlockError if the
    output is then known to have another shape.
    """
    model = _copy(skeleton.model)
    sizes = (feature.batch, feature.channels, feature.height, feature.width)
    for dimension, size, name in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, "NCHW", strict=True):
        dimension.Clear()
        if size is None:
            dimension.dim_param = name
        else:
            dimension.dim_value = size
    for _ in range(_ROUNDS):
        model, changed = _folded(model)
        if not changed:
            break
    _check_output(model, skeleton.label, feature)
    return Skeleton(_without_identities(model), skeleton.label)


def _check_output(model: ModelProto, label: str, feature: FeatureMap) -> None:
    kind = infer(model).graph.output[0].type.tensor_type
    if not kind.HasField("shape"):
        return
    shape = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    wanted = [feature.batch, feature.channels, feature.height, feature.width]
    if len(shape) != 4 or any(a != b for a, b in zip(shape, wanted, strict=True) if a is not None and b is not None):
        raise BlockError(f"a block keeps the shape of its input; {label} makes {shape} of {wanted}")


def infer(model: ModelProto) -> ModelProto:
    """With shapes and element types of all tensors, as far as ONNX can tell."""
    del model.graph.value_info[:]
    result: ModelProto = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return result


def _folded(model: ModelProto) -> tuple[ModelProto, bool]:
    """One pass of computing what is constant; whether anything was."""
    inferred = infer(model).graph
    shapes = {
        value.name: [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input)
        if value.type.tensor_type.HasField("shape")
    }
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
    node: NodeProto, known: dict[str, Array], shapes: dict[str, list[int | None]], model: ModelProto
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
    from onnx.reference import ReferenceEvaluator

    feeds = {name: known[name] for name in node.input if name}
    inputs = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in feeds.items()
    ]
    outputs = [onnx.helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output if name]
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "node", inputs, outputs), opset_imports=list(model.opset_import)
    )
    try:
        results: list[Any] = ReferenceEvaluator(alone).run(None, feeds)  # type: ignore[assignment]
    except Exception:  # it raises whatever its operators raise; then the node stays
        return None
    arrays = [np.asarray(each) for each in results]
    if any(each.size > _LARGEST for each in arrays):
        return None
    return dict(zip([name for name in node.output if name], arrays, strict=True))


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
