"""A skeleton made to fit one site: its sizes (see sizes.py), its opset (see opsets.py), its element type."""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import BlockError
from ..feature_map import FeatureMap
from .block_graph import Skeleton, fixed_names
from .opset_conversion import with_opset
from .sizes import with_sizes


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


def _copy(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied
