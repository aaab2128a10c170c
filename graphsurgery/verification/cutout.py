"""A block cut out of a model as it stands there: its own nodes and weights, one input, one output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx

from ..errors import ParityFailed

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion

Array = npt.NDArray[Any]


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
    """The nodes of a block as a model of their own, without a pair of QuantizeLinear and DequantizeLinear behind it.

    Raises ParityFailed where they no longer form one block.
    """
    behind = insertion.qdq.nodes if insertion.qdq else ()
    return _part(model, insertion, set(insertion.nodes).difference(behind), insertion.block_output)


def pair_of(model: ModelFile, insertion: Insertion) -> Cutout:
    """The pair of QuantizeLinear and DequantizeLinear behind a block as a model of its own. Raises ParityFailed."""
    assert insertion.qdq is not None
    return _part(model, insertion, set(insertion.qdq.nodes), insertion.output_tensor)


def _part(model: ModelFile, insertion: Insertion, wanted: set[str], output: str) -> Cutout:
    graph = model.structure.graph
    nodes = [_whole(model, node) for node in graph.node if node.name in wanted]
    missing = wanted - {node.name for node in nodes}
    if missing:
        raise ParityFailed(
            f"{insertion.id}: the model no longer has {_listed(missing)}, which is recorded as part of this insertion"
        )
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name and name not in made)
    weights = {name: tensor for name in read if (tensor := _constant(model, name)) is not None}
    inputs = [name for name in read if name not in weights]
    if len(inputs) != 1 or output not in made:
        raise ParityFailed(
            f"{insertion.id}: its nodes should read one tensor and give {output}, but they read "
            f"{_listed(inputs)} and give {_listed(made)}"
        )
    kind = onnx.helper.np_dtype_to_tensor_dtype(numpy_dtype(insertion.site.dtype))
    shape = list(insertion.site.shape)
    block = onnx.helper.make_graph(
        nodes,
        insertion.id,
        [onnx.helper.make_tensor_value_info(inputs[0], kind, shape)],
        [onnx.helper.make_tensor_value_info(output, kind, shape)],
        list(weights.values()),
    )
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
    nodes = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    return nodes | {tensor.name: tensor for tensor in model.graph.initializer}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The element type of a site as numpy (with ml_dtypes for bfloat16) sees it."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _whole(model: ModelFile, node: onnx.NodeProto) -> onnx.NodeProto:
    """A node with what it holds: the structure of a model has no payloads, and a Constant is one."""
    if node.op_type != "Constant" or (value := _constant(model, node.output[0])) is None:
        return node
    return onnx.helper.make_node("Constant", [], list(node.output), name=node.name, value=value)


def _constant(model: ModelFile, name: str) -> onnx.TensorProto | None:
    try:
        value: Array = model.tensor(name)
    except KeyError:
        return None
    return onnx.numpy_helper.from_array(value, name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
