"""Whether a model is quantised by QuantizeLinear and DequantizeLinear nodes, and what else its types ask for."""

from __future__ import annotations

import onnx

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_HALVES = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}


def is_quantised(structure: onnx.ModelProto) -> bool:
    """Whether the main graph has Q/DQ nodes."""
    return any(node.op_type in _QDQ for node in structure.graph.node)


def halves(structure: onnx.ModelProto) -> set[str]:
    """The 16-bit float types ("fp16", "bf16") of the model's inputs, outputs, weights and casts."""
    graph = structure.graph
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    kinds |= {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        kinds |= {a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"}
        kinds |= {a.t.data_type for a in node.attribute if node.op_type == "Constant" and a.HasField("t")}
    return {name for kind, name in _HALVES.items() if kind in kinds}


def element_types(structure: onnx.ModelProto) -> set[str]:
    """What a builder before TensorRT 11 has to be allowed for this model: some of "fp16", "bf16" and "int8"."""
    return halves(structure) | ({"int8"} if is_quantised(structure) else set())
