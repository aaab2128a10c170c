"""A skeleton in another opset.

Most operators that a block is made of have only been given more element types over the years, and ONNX's own converter
does not go back even over that. So these are taken as they are; the reductions, whose axes became an input, are
rewritten; everything else is left to the converter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import BlockError
from .skeleton import Skeleton

_SAME_SINCE: dict[str, int] = {
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Shape", "Softplus"), 1
    ),
    **dict.fromkeys(("Transpose", "MatMul", "SpaceToDepth", "Softsign"), 1),
    "Concat": 4,
    "Reshape": 5,
    **dict.fromkeys(("Abs", "Ceil", "Elu", "Exp", "Floor", "HardSigmoid", "InstanceNormalization", "LeakyRelu"), 6),
    **dict.fromkeys(("Log", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sqrt", "Tanh"), 6),
    **dict.fromkeys(("Add", "Div", "Mul", "PRelu", "Pow", "Sub"), 7),
    **dict.fromkeys(("Expand", "Max", "Min", "Sum"), 8),
    **dict.fromkeys(("BatchNormalization", "Cast", "Erf", "Where"), 9),
    **dict.fromkeys(("AveragePool", "Clip", "DepthToSpace", "Equal", "Flatten", "Gather", "Gemm", "MaxPool"), 11),
    **dict.fromkeys(("Pad", "Slice"), 11),
    **dict.fromkeys(("ReduceSum", "Resize", "Softmax", "Split", "Squeeze", "Unsqueeze"), 13),
    "HardSwish": 14,
    "LayerNormalization": 17,
}
"""Operator -> the first opset from which on its meaning is that of today, but for attributes that came later."""
_REDUCTIONS = frozenset(f"Reduce{kind}" for kind in ("L1", "L2", "Max", "Mean", "Min", "Prod", "SumSquare"))
_REDUCTIONS_SINCE = 11
_AXES_AS_INPUT = 18


def with_opset(skeleton: Skeleton, opset: int) -> Skeleton:
    """The same function in another opset. BlockError if it cannot be said there."""
    if skeleton.opset == opset:
        return skeleton
    model = ModelProto()
    model.CopyFrom(skeleton.model)
    restated = [
        list(each) if (each := _restated(node, model, skeleton.opset, opset)) else None for node in model.graph.node
    ]
    if all(restated):
        nodes = [node for each in restated for node in each or []]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        del model.opset_import[:]
        model.opset_import.append(onnx.helper.make_opsetid("", opset))
        return Skeleton(model, skeleton.label)
    return Skeleton(_converted(skeleton, opset), skeleton.label)


def _converted(skeleton: Skeleton, opset: int) -> ModelProto:
    from onnx import version_converter

    try:
        model: ModelProto = version_converter.convert_version(skeleton.model, opset)
        return model
    except Exception as error:  # whatever its C++ side raises
        reason = " ".join(str(error).split()).rpartition("failed: ")[2]
        raise BlockError(
            f"{skeleton.label} is in opset {skeleton.opset} and the model in {opset}, and ONNX cannot convert it "
            f"({reason[:160]}); export it with opset {opset}"
        ) from None


def _restated(node: NodeProto, model: ModelProto, old: int, new: int) -> list[NodeProto]:
    """What the node is in the other opset; [] if that is not known here."""
    if node.op_type in _REDUCTIONS and min(old, new) >= _REDUCTIONS_SINCE:
        if (old < _AXES_AS_INPUT) == (new < _AXES_AS_INPUT):
            return [node]
        return list(_reduction(node, model, axes_as_input=new >= _AXES_AS_INPUT))
    try:
        before, after = (onnx.defs.get_schema(node.op_type, version, "") for version in (old, new))
    except onnx.defs.SchemaError:
        return []
    since = _SAME_SINCE.get(node.op_type, max(old, new) + 1)
    same = before.since_version == after.since_version or min(old, new) >= since
    if not same or len(node.input) > after.max_input:
        return []
    restated = NodeProto()
    restated.CopyFrom(node)
    del restated.attribute[:]
    for attribute in node.attribute:
        if attribute.name in after.attributes:
            restated.attribute.append(attribute)
        elif not _is_default(attribute, before):  # one that came later, and says something
            return []
    return [restated]


def _is_default(attribute: onnx.AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    default = schema.attributes[attribute.name].default_value
    value, usual = (onnx.helper.get_attribute_value(each) if each.type else None for each in (attribute, default))
    return bool(value == usual)


def _reduction(node: NodeProto, model: ModelProto, *, axes_as_input: bool) -> Iterator[NodeProto]:
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    if axes_as_input:
        inputs = [node.input[0]]
        if "axes" in attributes:
            inputs.append(f"{node.output[0]}.axes")
            model.graph.initializer.append(
                numpy_helper.from_array(np.array(attributes.pop("axes"), np.int64), inputs[1])
            )
        yield onnx.helper.make_node(node.op_type, inputs, node.output, **attributes)
        return
    constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
    axes = node.input[1] if len(node.input) > 1 else ""
    if axes and axes not in constants:
        return
    given = numpy_helper.to_array(constants[axes]).tolist() if axes else []
    nothing = bool(attributes.pop("noop_with_empty_axes", 0))
    if given or not nothing:
        attributes |= {"axes": given} if given else {}
        yield onnx.helper.make_node(node.op_type, node.input[:1], node.output, **attributes)
