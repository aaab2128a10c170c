"""Values that a model holds in its messages, decoded: tensors, Constant nodes, attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from ..errors import ModelError
from ..feature_map import Array, type_name
from ..messages import as_text, shape_text

_DTYPES = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
"""attribute of a Constant -> the element type of its value"""


def array(tensor: TensorProto) -> Array:
    """The value of a tensor that is not external data. ModelError if its bytes are not those of its shape and type."""
    try:
        if any(size < 0 for size in tensor.dims):
            raise ValueError
        return numpy_helper.to_array(tensor)
    except Exception:  # the decoder raises whatever numpy, protobuf and the codecs raise
        kind, shape = type_name(tensor.data_type), shape_text(tensor.dims)
        raise ModelError(
            f"the tensor {as_text(tensor.name)!r} cannot be read: its bytes are not those of {kind} {shape}"
        ) from None


def of_constant(node: onnx.NodeProto) -> TensorProto | None:
    """The value of a Constant node, under the name of its output; None for text, a sparse tensor, and for no value."""
    for attribute in node.attribute if node.output else ():
        if attribute.name == "value" and attribute.HasField("t"):
            tensor: TensorProto = attribute.t
            return tensor
        if attribute.name in _DTYPES and (value := attribute_value(attribute)) is not None:
            return numpy_helper.from_array(np.asarray(value, _DTYPES[attribute.name]), node.output[0])
    return None


def attribute_value(attribute: AttributeProto) -> Any:
    """The value of an attribute; None where it has none of its own: a reference to one of the function's, or a type
    that ONNX does not know.
    """
    if attribute.ref_attr_name or attribute.type not in _KINDS:
        return None
    return onnx.helper.get_attribute_value(attribute)


_KINDS = frozenset(AttributeProto.AttributeType.values()) - {AttributeProto.UNDEFINED}
