"""Cutout: an inserted block as a model of its own, with its nodes and weights as they stand in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..errors import ParityFailed
from ..feature_map import Array, numpy_dtype
from ..messages import listed
from ..modelfile import payload
from ..modelfile.operators import operator

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion


@dataclass(frozen=True)
class Cutout:
    """``model``: the block alone, with the opset, IR version and element type of the file it was taken from."""

    model: onnx.ModelProto
    input: str
    """The tensor that enters the block: the site, or the output of the block before it in a chain."""
    output: str
    dtype: str
    """element type of both"""


def cut_out(model: ModelFile, insertion: Insertion) -> Cutout:
    """The nodes of a block as a model of their own, without the QuantizeLinear and DequantizeLinear after it.

    Raises ParityFailed where they no longer form one block.
    """
    pair = insertion.qdq.nodes if insertion.qdq else ()
    return _part(model, insertion, set(insertion.nodes).difference(pair), insertion.block_output)


def pair_of(model: ModelFile, insertion: Insertion) -> Cutout:
    """The QuantizeLinear and DequantizeLinear after a block as a model of their own. Raises ParityFailed."""
    assert insertion.qdq is not None
    return _part(model, insertion, set(insertion.qdq.nodes), insertion.output_tensor)


def _part(model: ModelFile, insertion: Insertion, wanted: set[str], output: str) -> Cutout:
    graph = model.graph
    nodes = [_with_payload(model, node) for node in graph.node if node.name in wanted]
    missing = wanted - {node.name for node in nodes}
    if missing:
        raise ParityFailed(
            f"{insertion.id}: the model no longer has {listed(sorted(missing))}, "
            "which is recorded as part of this insertion"
        )
    produced = {name for node in nodes for name in node.output}
    consumed = dict.fromkeys(name for node in nodes for name in node.input if name and name not in produced)
    weights = {name: tensor for name in consumed if (tensor := _constant(model, name)) is not None}
    inputs = [name for name in consumed if name not in weights]
    if len(inputs) != 1 or output not in produced:
        raise ParityFailed(
            f"{insertion.id}: its nodes should read one tensor and give {output}, but they read "
            f"{listed(sorted(inputs)) or 'nothing'} and give {listed(sorted(produced)) or 'nothing'}"
        )
    kind = onnx.helper.np_dtype_to_tensor_dtype(numpy_dtype(insertion.site.dtype))
    x, y = (onnx.helper.make_tensor_value_info(name, kind, insertion.site.shape) for name in (inputs[0], output))
    block = onnx.helper.make_graph(nodes, insertion.id, [x], [y], list(weights.values()))
    alone = onnx.helper.make_model(
        block, opset_imports=list(model.structure.opset_import), ir_version=model.structure.ir_version
    )
    return Cutout(alone, inputs[0], output, insertion.site.dtype)


def with_constants(cutout: Cutout, values: Mapping[str, Array]) -> Cutout:
    """A copy in which some constants have other values, broadcast to their shapes, in their own element types."""
    model = onnx.ModelProto()
    model.CopyFrom(cutout.model)
    for name, tensor in constants(model).items():
        if name in values:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            whole = np.broadcast_to(values[name].astype(kind), tuple(tensor.dims))
            tensor.CopyFrom(onnx.numpy_helper.from_array(whole, name))
    return replace(cutout, model=model)


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """What the nodes compute with, by name, in the order of the file: initializers, or up to IR version 3 nodes."""
    nodes = {
        node.output[0]: value
        for node in model.graph.node
        if operator(node) == "Constant" and (value := payload.of_constant(node)) is not None
    }
    return nodes | {tensor.name: tensor for tensor in model.graph.initializer}


def _with_payload(model: ModelFile, node: onnx.NodeProto) -> onnx.NodeProto:
    """A node that holds its own value: the structure of a model has no payloads, and a Constant is one."""
    if operator(node) != "Constant" or not node.output or (value := _constant(model, node.output[0])) is None:
        return node
    return onnx.helper.make_node("Constant", [], list(node.output), name=node.name, value=value)


def _constant(model: ModelFile, name: str) -> onnx.TensorProto | None:
    try:
        value: Array = model.tensor(name)
    except KeyError:
        return None
    return onnx.numpy_helper.from_array(value, name)
