"""Values that a model computes from constants alone, as far as shapes depend on them.

An export that nobody simplified computes paddings and target shapes with chains of small nodes, which shape
inference does not follow. Here such chains are evaluated and put into a copy of the model as initializers.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from .shape_values import ShapeValues

_SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Expand", "Reshape", "Split", "Squeeze", "Tile", "Unsqueeze", "Upsample"), (1,)),
    "ConstantOfShape": (0,),
    "Pad": (1, 3),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
}
"""operator -> the inputs on which the shape of its output depends"""


def fold_shapes(model: onnx.ModelProto) -> None:
    """Replace the inputs above that ``model`` computes from constants by initializers, in place.

    ``model`` is a copy to infer shapes on: the large tensors in it have no data. What cannot be evaluated stays as
    it is.
    """
    graph = model.graph
    values = ShapeValues(model, lambda _: None)
    slots = ((node.input, slot) for node in graph.node for slot in _SHAPE_INPUTS.get(node.op_type, ()))
    read = dict.fromkeys(inputs[slot] for inputs, slot in slots if slot < len(inputs))
    producer = values.producer
    computed = [name for name in read if name in producer and graph.node[producer[name]].op_type != "Constant"]
    for name, value in values.of(computed).items():
        graph.initializer.append(numpy_helper.from_array(value, name))
        outputs = graph.node[producer[name]].output
        outputs[list(outputs).index(name)] = f"{name} (folded)"
