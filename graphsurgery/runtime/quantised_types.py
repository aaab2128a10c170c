"""Whether a model is quantised by QuantizeLinear and DequantizeLinear nodes, and what else its types ask for."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from ..modelfile.operators import operator

_FP8 = frozenset({onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2})
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_HALVES = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}


def is_quantised(structure: onnx.ModelProto) -> bool:
    """Whether the main graph has Q/DQ nodes."""
    return any(operator(node) in _QDQ for node in structure.graph.node)


def halves(structure: onnx.ModelProto) -> set[str]:
    """The 16-bit float types ("fp16", "bf16") of the model's inputs, outputs, weights and casts."""
    graph = structure.graph
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    kinds |= {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        kinds |= {a.i for a in node.attribute if operator(node) == "Cast" and a.name == "to"}
        kinds |= {a.t.data_type for a in node.attribute if operator(node) == "Constant" and a.HasField("t")}
    return {name for kind, name in _HALVES.items() if kind in kinds}


def quantised_to(structure: onnx.ModelProto) -> set[str]:
    """What the Q/DQ nodes of the main graph quantise to: "fp8", "int8" (any integers), or both."""
    graph = structure.graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds |= {
        n.output[0]: a.t.data_type for n in graph.node if operator(n) == "Constant" and n.output for a in n.attribute
    }
    return {_quantised_to(node, kinds) for node in graph.node if operator(node).endswith("QuantizeLinear")}


def _quantised_to(node: onnx.NodeProto, kinds: Mapping[str, int]) -> str:
    """Of one QuantizeLinear: the type of its zero point, or what an attribute or the name of the operator says."""
    stated = [a.i for a in node.attribute if a.name == "output_dtype"]
    kind = kinds.get(node.input[2], 0) if len(node.input) > 2 else next(iter(stated), 0)
    return "fp8" if kind in _FP8 or "FP8" in operator(node) else "int8"


def element_types(structure: onnx.ModelProto) -> set[str]:
    """Some of "fp16", "bf16", "int8" and "fp8": what a builder before TensorRT 11 has to be allowed for this model."""
    return halves(structure) | quantised_to(structure)
