"""Copying a skeleton's nodes into a template."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from ..feature_map import float_dtype
from ..template.template import Template
from .block_graph import Skeleton, fixed_names
from .sizes import infer


def paste(t: Template, skeleton: Skeleton, weight: Callable[[str], gs.Tensor]) -> gs.Variable:
    """Write the nodes behind ``t.x`` and return what they give; ``weight(name)`` gives the tensor of a weight.

    ``skeleton`` is in the template's opset, element type and sizes (see adapt.fitted).
    """
    graph = infer(skeleton.model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    tensors: dict[str, gs.Tensor] = {"": gs.Variable.empty(), skeleton.x.name: t.x}
    weights, fixed = set(skeleton.parameters), fixed_names(graph.node, skeleton.model)
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def tensor(name: str) -> gs.Tensor:
        if name not in tensors:
            if name in weights:
                tensors[name] = weight(name)
            else:
                values = numpy_helper.to_array(constants[name])
                own = float_dtype(constants[name].data_type) is None or name in fixed
                tensors[name] = t.own(values, name) if own else t.constant(values, name)
        return tensors[name]

    for node in graph.node:
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        types = [kinds.get(name) or t.feature.onnx_type for name in node.output]
        outputs = t.node(node.op_type, [tensor(name) for name in node.input], types, **attributes)
        tensors |= {name: made for name, made in zip(node.output, outputs, strict=True) if name}
    output = tensors[graph.output[0].name]
    assert isinstance(output, gs.Variable)
    return t.op("Identity", output) if output is t.x else output
