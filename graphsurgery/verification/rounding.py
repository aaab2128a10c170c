"""A half-precision block with every intermediate result rounded to its element type.

onnxruntime has next to no float16 arithmetic on the CPU: it runs the whole block in float32 and rounds the result, so
a sum that overflows float16 on a GPU comes out right there. For bfloat16 it has no kernels at all. TensorRT and the
CUDA provider keep the tensors between operators in half precision, with sums inside an operator in float32. This
module rewrites a model to do just that on any machine: each operator in float32, then rounded to float16 or bfloat16
and back.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_LIFTED = (*HALVES, TensorProto.DOUBLE)


def rounded_after_every_node(model: ModelProto) -> ModelProto:
    """The same block computed as said above; its inputs and outputs are float32 that hold half-precision values.

    ``model``: without nested subgraphs. To be run with graph optimisation off.
    """
    kinds = _kinds(model)
    graph = GraphProto(name=model.graph.name)
    graph.input.extend(_as_float32(value) for value in model.graph.input)
    graph.output.extend(_as_float32(value) for value in model.graph.output)
    graph.initializer.extend(_lifted(tensor) for tensor in model.graph.initializer)
    for node in model.graph.node:
        graph.node.extend(_steps(node, kinds))
    return onnx.helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def in_float32(model: ModelProto) -> ModelProto:
    """The same block with float32 in the place of every other floating-point type, to look at what it computes."""
    graph = GraphProto(name=model.graph.name)
    graph.input.extend(_as_float32(value) for value in model.graph.input)
    graph.output.extend(_as_float32(value) for value in model.graph.output)
    graph.initializer.extend(_lifted(tensor) for tensor in model.graph.initializer)
    graph.node.extend(_lifted_node(node) for node in model.graph.node)
    return onnx.helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def _kinds(model: ModelProto) -> dict[str, int]:
    """Element type of every tensor; a tensor whose type cannot be inferred counts as the input's."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # onnxruntime will say what is wrong with the model
        inferred = model.graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    default = model.graph.input[0].type.tensor_type.elem_type
    for node in model.graph.node:
        for name in node.output:
            kinds[name] = kinds.get(name) or default
    return kinds


def _steps(node: NodeProto, kinds: dict[str, int]) -> Iterable[NodeProto]:
    """The node in float32, then for each half-precision output a rounding to that type and back to float32."""
    lifted = _lifted_node(node)
    casts: list[NodeProto] = []
    for place, name in enumerate(node.output):
        if name and kinds[name] in HALVES:
            exact, half = f"{name}/exact", f"{name}/half"
            lifted.output[place] = exact
            casts.append(onnx.helper.make_node("Cast", [exact], [half], to=kinds[name]))
            casts.append(onnx.helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    return [lifted, *casts]


def _lifted_node(node: NodeProto) -> NodeProto:
    lifted = NodeProto()
    lifted.CopyFrom(node)
    for attribute in lifted.attribute:
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type in _LIFTED:
            attribute.t.CopyFrom(_lifted(attribute.t))
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _LIFTED:
            attribute.i = TensorProto.FLOAT
    return lifted


def _as_float32(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    result = onnx.ValueInfoProto()
    result.CopyFrom(value)
    if result.type.tensor_type.elem_type in _LIFTED:
        result.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def _lifted(tensor: TensorProto) -> TensorProto:
    if tensor.data_type not in _LIFTED:
        return tensor
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
