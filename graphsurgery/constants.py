"""Values that a model computes from constants alone, as far as shapes depend on them.

An export that nobody simplified computes paddings and target shapes with chains of small nodes, which shape
inference does not follow. Here such chains are evaluated, with ONNX's own reference evaluator, and put into a copy
of the model as initializers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

_SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 3),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}


def fold_shapes(model: onnx.ModelProto) -> None:
    """Replace the inputs above that ``model`` computes from constants by initializers, in place.

    ``model`` is a copy to infer shapes on: the large tensors in it have no data. What cannot be evaluated stays as
    it is.
    """
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output if name}
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    values: dict[str, np.ndarray[Any, Any] | None] = {}
    for node in graph.node:
        for slot in _SHAPE_INPUTS.get(node.op_type, ()):
            name = node.input[slot] if slot < len(node.input) else ""
            if name in producer and producer[name].op_type != "Constant" and name not in values:
                value = _evaluate(name, producer, initializers, values, model)
                if value is not None:
                    tensor = numpy_helper.from_array(value, name)
                    graph.initializer.append(tensor)
                    producer[name].output[list(producer[name].output).index(name)] = f"{name} (folded)"


def _evaluate(
    wanted: str,
    producer: dict[str, onnx.NodeProto],
    initializers: dict[str, onnx.TensorProto],
    values: dict[str, np.ndarray[Any, Any] | None],
    model: onnx.ModelProto,
) -> np.ndarray[Any, Any] | None:
    """The value of a tensor, or None if it depends on an input of the model or cannot be evaluated."""
    pending, entered = [wanted], set[str]()
    while pending:
        name = pending[-1]
        if name in values:
            pending.pop()
            continue
        node = producer.get(name)
        if node is None:
            values[name] = _data(initializers[name]) if name in initializers else None
            continue
        missing = [each for each in node.input if each and each not in values]
        if missing and name not in entered:
            entered.add(name)
            pending += missing
            continue
        inputs = {each: values.get(each) for each in node.input if each}  # still missing: a cycle
        if any(value is None for value in inputs.values()):
            values.update((each, None) for each in node.output)
            continue
        values.update(_run(node, inputs, model))
    return values[wanted]


def _data(tensor: onnx.TensorProto) -> np.ndarray[Any, Any] | None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except Exception:  # a tensor whose payload was left out of the copy
        return None


def _run(
    node: onnx.NodeProto, inputs: dict[str, np.ndarray[Any, Any] | None], model: onnx.ModelProto
) -> dict[str, np.ndarray[Any, Any] | None]:
    from onnx.reference import ReferenceEvaluator

    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = onnx.helper.make_graph([node], "constant", [onnx.ValueInfoProto(name=name) for name in inputs], outputs)
    try:
        small = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        results = ReferenceEvaluator(small).run(None, inputs)
    except Exception:  # an operator that the evaluator does not know, or a value that is not there
        return dict.fromkeys(node.output)
    return dict(zip(node.output, results, strict=True))
