"""Values that a model computes from constants alone, as far as shapes depend on them.

An export that nobody simplified computes paddings and target shapes with chains of small nodes, which shape
inference does not follow. Here such chains are evaluated and put into a copy of the model as initializers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import ModelError
from ..modelfile import limits, payload
from .index import STANDARD, upstream
from .output_sizes import domain_of, most_elements

Array: TypeAlias = np.ndarray[Any, Any]

_SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Expand", "Reshape", "Split", "Squeeze", "Tile", "Unsqueeze", "Upsample"), (1,)),
    "ConstantOfShape": (0,),
    "Pad": (1, 3),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
}
"""operator -> the inputs on which the shape of its output depends"""
_OPERATORS = frozenset(
    {"Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Gather", "Identity", "Mul", "Reshape", "Slice"}
    | {"Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"}
)
"""what exporters compute shapes with"""


def fold_shapes(model: onnx.ModelProto) -> None:
    """Replace the inputs above that ``model`` computes from constants by initializers, in place.

    ``model`` is a copy to infer shapes on: the large tensors in it have no data. What cannot be evaluated stays as
    it is.
    """
    graph = model.graph
    producer = {name: node_index for node_index, node in enumerate(graph.node) for name in node.output if name}
    slots = ((node.input, slot) for node in graph.node for slot in _SHAPE_INPUTS.get(node.op_type, ()))
    read = dict.fromkeys(inputs[slot] for inputs, slot in slots if slot < len(inputs))
    computed = [name for name in read if name in producer and graph.node[producer[name]].op_type != "Constant"]
    values = _values(model, computed, producer)
    for name in computed:
        if (value := values.get(name)) is not None:
            graph.initializer.append(numpy_helper.from_array(value, name))
            outputs = graph.node[producer[name]].output
            outputs[list(outputs).index(name)] = f"{name} (folded)"


def evaluate(
    node: onnx.NodeProto, inputs: Mapping[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]
) -> dict[str, Array] | None:
    """The outputs of a node for the values of its inputs; None for what ONNX's reference cannot evaluate."""
    from onnx.reference import ReferenceEvaluator  # takes as long as a small edit, and few models need it

    graph = onnx.GraphProto(name="node", node=[node])
    graph.node[0].domain = domain_of(node)
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in inputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    try:
        versions = {domain_of(entry): entry.version for entry in opsets}
        found: list[Any] = ReferenceEvaluator(graph, opsets=versions).run(None, dict(inputs))  # type: ignore[assignment]
    except Exception:  # it raises whatever its operators raise
        return None
    return {value.name: np.asarray(array) for value, array in zip(graph.output, found, strict=True)}


def _values(model: onnx.ModelProto, wanted: Iterable[str], producer: Mapping[str, int]) -> dict[str, Array]:
    """What tensors hold, and those that they are computed from; not one that depends on an input of the model, or that
    cannot be evaluated.
    """
    nodes, values = model.graph.node, dict[str, Array]()
    initializers = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in producer}
    for node_index in upstream(wanted, producer, lambda node_index: nodes[node_index].input):
        node = nodes[node_index]
        if node.op_type == "Constant":
            stored = payload.of_constant(node)
            given = {} if stored is None else {node.output[0]: stored}
        else:
            given = {name: initializers[name] for name in node.input if name in initializers and name not in values}
        values |= {name: value for name, tensor in given.items() if (value := _data(tensor)) is not None}
        inputs = {name: values[name] for name in node.input if name in values}
        if inputs.keys() >= set(filter(None, node.input)):
            values |= _run(node, inputs, model.opset_import) or {}
    return values


def _data(tensor: onnx.TensorProto) -> Array | None:
    if not tensor.data_type or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return payload.array(tensor)
    except ModelError:  # a tensor whose payload was left out of the copy
        return None


def _run(
    node: onnx.NodeProto, inputs: Mapping[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]
) -> dict[str, Array] | None:
    """What a node gives that computes a shape; None for any other."""
    if node.op_type not in _OPERATORS or node.domain not in STANDARD or len(node.output) != 1:
        return None
    if node.op_type == "Identity":  # many chains have nothing else in them, and so the reference need not be loaded
        return {node.output[0]: inputs[node.input[0]]}
    if not most_elements(node, inputs, opsets) <= limits.SHAPE_ELEMENTS:
        return None
    return evaluate(node, inputs, opsets)
