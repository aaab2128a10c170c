"""Values that a model computes from constants alone, as far as shapes depend on them.

An export that nobody simplified computes paddings and target shapes with chains of small nodes, which shape
inference does not follow. Here such chains are evaluated and put into a copy of the model as initializers.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from ..modelfile.operators import operator

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
    slots = ((node.input, slot) for node in graph.node for slot in _SHAPE_INPUTS.get(operator(node), ()))
    read = dict.fromkeys(inputs[slot] for inputs, slot in slots if slot < len(inputs))
    if not read:
        return
    producer = {name: node_index for node_index, node in enumerate(graph.node) for name in node.output if name}
    computed = [name for name in read if name in producer and operator(graph.node[producer[name]]) != "Constant"]
    if not computed:
        return
    from .shape_values import ShapeValues

    for name, value in ShapeValues(model, lambda _: None).of(computed).items():
        graph.initializer.append(numpy_helper.from_array(value, name))
        outputs = graph.node[producer[name]].output
        outputs[list(outputs).index(name)] = f"{name} (folded)"
