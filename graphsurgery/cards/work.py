"""Work: the multiply-accumulates of a small model, and the largest tensor between its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx

_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Work:
    """What a model of known sizes takes."""

    macs: int
    """multiplications with an addition each, of convolutions and of matrix products"""
    largest: tuple[int, ...]
    """shape of the largest tensor that one node hands to another; () where there is none"""


def work(model: onnx.ModelProto) -> Work | None:
    """The work of a model; None where the size of a tensor is not known.

    Parameters
    ----------
    model:
        A model without subgraphs and functions, with inputs of known shapes.
    """
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = value.type.tensor_type.shape
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in shape.dim)
    results = {value.name for value in graph.output}
    handed = [name for node in graph.node for name in node.output if node.op_type != "Constant" and name not in results]
    try:
        macs = sum(macs_of(node, shapes) for node in graph.node)
        largest = max((shapes[name] for name in handed), key=prod, default=())
    except KeyError:
        return None
    return Work(macs, largest)


def macs_of(node: onnx.NodeProto, shapes: _Shapes) -> int:
    """The multiply-accumulates of one node. KeyError where the shape of a tensor is not known."""
    if node.op_type in ("Conv", "DeformConv"):
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else 1]
    return 0
