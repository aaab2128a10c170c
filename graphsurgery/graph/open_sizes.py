"""Models with open sizes at sizes of one's own: what they compute of shapes are numbers there.

Exporters compute sizes that a block needs outside of it, from the sizes of the model's inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from ..feature_map import channels_first
from ..modelfile.fields import GRAPH_INPUT, GRAPH_OUTPUT, NODE, VALUE_INFO, Edit
from ..modelfile.model import ModelFile
from ..modelfile.operators import operator
from .index import GIVES_SIZES, GraphIndex
from .shapes import ShapeTable

_BATCHES = (1, 2)
_SIDES = ((256, 192), (192, 256))
"""of images, multiples of the usual strides"""


def shapes_to_try(index: GraphIndex) -> Iterator[Mapping[str, tuple[int, ...]]]:
    """Shapes of all inputs of a model, with other numbers for what is open; nothing where all sizes are stated."""
    open_ones = {name for name in index.free_inputs if not all(map(_is_stated, _dimensions(index, name)))}
    if open_ones:
        for batch, sides in zip(_BATCHES, _SIDES, strict=True):
            yield {name: _settled(index, name, batch, sides) for name in open_ones}


def _dimensions(index: GraphIndex, name: str) -> list[onnx.TensorShapeProto.Dimension]:
    return list(index.inputs[name].type.tensor_type.shape.dim)


def _is_stated(dimension: onnx.TensorShapeProto.Dimension) -> bool:
    return dimension.dim_value > 0


def _settled(index: GraphIndex, name: str, batch: int, sides: tuple[int, int]) -> tuple[int, ...]:
    stated = tuple(max(each.dim_value, 0) for each in _dimensions(index, name))
    if len(stated) != 4:
        return tuple(each or batch for each in stated)
    usual = (batch, 3, *sides) if channels_first(stated) == stated else (batch, *sides, 3)
    return tuple(each or other for each, other in zip(stated, usual, strict=True))


def at_sizes(model: ModelFile, shapes: Mapping[str, tuple[int, ...]]) -> ModelFile:
    """A model with inputs of these shapes: the same nodes, but that a Shape or a Size is a constant."""
    edit, graph = Edit(), model.structure.graph
    for i, value in enumerate(graph.input):
        if value.name in shapes:
            made = onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shapes[value.name])
            edit.replaced[GRAPH_INPUT, i] = made.SerializeToString()
    for i, value in enumerate(graph.output):
        if not value.type.HasField("tensor_type"):
            continue
        made = onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, None)
        edit.replaced[GRAPH_OUTPUT, i] = made.SerializeToString()
    for i in range(len(graph.value_info)):
        edit.drop(VALUE_INFO, i)
    settled = model.edited(edit)
    index = GraphIndex(settled)
    table, told = ShapeTable(index), Edit()
    table.infer()
    for i, node in enumerate(index.nodes):
        if index.operators[i] in GIVES_SIZES and (value := _told(node, table)) is not None:
            constant = onnx.helper.make_node("Constant", [], list(node.output), node.name, value=value)
            constant.metadata_props.extend(node.metadata_props)
            told.replaced[NODE, i] = constant.SerializeToString()
    return settled.edited(told)


def _told(node: onnx.NodeProto, table: ShapeTable) -> onnx.TensorProto | None:
    """What a Shape or a Size gives; None where that is not known."""
    shape = table.lookup(node.input[0])[1]
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    sizes = np.array(shape, np.int64)
    if operator(node) == "Size":
        return onnx.numpy_helper.from_array(np.array(sizes.prod(), np.int64))
    given = {each.name: each.i for each in node.attribute}
    return onnx.numpy_helper.from_array(sizes[given.get("start", 0) : given.get("end", len(sizes))])
