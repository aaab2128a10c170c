"""A skeleton in another opset.

Most operators that a block is made of have only been given more element types over the years, and ONNX's own converter
does not go back even over that. So these are taken as they are; those whose form changed are restated (restated.py);
what is left goes to the converter, node by node, so that one that it refuses does not hold up the others.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from ..errors import BlockError
from .block_graph import Skeleton
from .restated import RULES, Change
from .shape_check import known_shapes
from .sizes import infer

_SAME_SINCE: dict[str, int] = {
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Shape", "Softplus"), 1
    ),
    **dict.fromkeys(("Transpose", "MatMul", "SpaceToDepth", "Softsign", "Not", "LpNormalization"), 1),
    "Concat": 4,
    **dict.fromkeys(("Abs", "Ceil", "Elu", "Exp", "Floor", "HardSigmoid", "InstanceNormalization", "LeakyRelu"), 6),
    **dict.fromkeys(("Log", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sqrt", "Tanh", "Tile"), 6),
    **dict.fromkeys(("Add", "And", "Cos", "Div", "Mul", "Or", "PRelu", "Pow", "Sin", "Sub"), 7),
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


def with_opset(skeleton: Skeleton, opset: int) -> Skeleton:
    """The same function in another opset. BlockError, with the operator, if it cannot be said there."""
    if skeleton.opset == opset:
        return skeleton
    model = ModelProto()
    model.CopyFrom(skeleton.model)
    inferred = infer(model)
    change = Change(model, known_shapes(inferred), skeleton.opset, opset)
    nodes = []
    for node in skeleton.model.graph.node:
        nodes += _taken(node, change) or _converted(node, inferred, change, skeleton.label)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    return Skeleton(model, skeleton.label)


def _taken(node: NodeProto, change: Change) -> list[NodeProto] | None:
    """What the node is in the other opset; None if that is not known here."""
    before, after = (_schema(node.op_type, version) for version in (change.old, change.new))
    if before is not None and after is not None and before.since_version == after.since_version:
        return [node]
    if rule := RULES.get(node.op_type):
        return rule(node, change)
    since = _SAME_SINCE.get(node.op_type)
    if before is None or after is None or since is None or min(change.old, change.new) < since:
        return None
    if len(node.input) > after.max_input:
        return None
    restated = NodeProto()
    restated.CopyFrom(node)
    del restated.attribute[:]
    for attribute in node.attribute:
        if attribute.name in after.attributes:
            restated.attribute.append(attribute)
        elif not _is_default(attribute, before):  # one that came later, and says something
            return None
        if change.new < _LATE_VALUES.get((node.op_type, attribute.s), 0):
            return None
    return [restated]


def _schema(operator: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return None


def _is_default(attribute: onnx.AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    default = schema.attributes[attribute.name].default_value
    value, usual = (onnx.helper.get_attribute_value(each) if each.type else None for each in (attribute, default))
    return bool(value == usual)


def _converted(node: NodeProto, inferred: ModelProto, change: Change, label: str) -> list[NodeProto]:
    """What ONNX's converter makes of the node. BlockError if it refuses."""
    from onnx import version_converter

    if _schema(node.op_type, change.new) is None:
        versions = (each for each in onnx.defs.get_all_schemas_with_history() if each.name == node.op_type)
        reason = f"ONNX has it from opset {min(each.since_version for each in versions)} on"
    else:
        try:
            return _own_names(version_converter.convert_version(_alone(node, inferred), change.new), node, change)
        except Exception as error:  # whatever its C++ side raises
            text = " ".join(str(error).split()).rpartition("failed: ")[2].replace("$", "")
            reason = f"ONNX's converter says: {text[:160]}" if text else "ONNX's converter cannot do it"
    raise BlockError(
        f"{label} is in opset {change.old} and the model in {change.new}, and its {node.op_type} cannot be said there "
        f"({reason}); export it with opset {change.new}"
    )


def _alone(node: NodeProto, inferred: ModelProto) -> ModelProto:
    """A model of one node, with what is known of its tensors."""
    graph = inferred.graph
    constants = [tensor for tensor in graph.initializer if tensor.name in node.input]
    types = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    arriving = dict.fromkeys(name for name in node.input if name and name not in {each.name for each in constants})
    inputs = [types.get(name, onnx.ValueInfoProto(name=name)) for name in arriving]
    outputs = [types.get(name, onnx.ValueInfoProto(name=name)) for name in node.output if name]
    alone = onnx.helper.make_graph([node], "node", inputs, outputs, constants)
    return onnx.helper.make_model(alone, opset_imports=list(inferred.opset_import), ir_version=inferred.ir_version)


def _own_names(made: ModelProto, node: NodeProto, change: Change) -> list[NodeProto]:
    """The nodes of a converted model, with names that are free in the whole one; its constants go there."""
    known = {"", *node.input, *node.output}
    found = []
    for tensor in made.graph.initializer:
        if tensor.name not in known:
            change.model.graph.initializer.append(_renamed(tensor, f"{node.output[0]}.{tensor.name}"))
    for each in made.graph.node:
        for names in (each.input, each.output):
            for place, name in enumerate(names):
                names[place] = name if name in known else f"{node.output[0]}.{name}"
        if each.op_type == "Constant":
            change.model.graph.initializer.append(_renamed(each.attribute[0].t, each.output[0]))
        else:
            found.append(each)
    return found


def _renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor), name)
