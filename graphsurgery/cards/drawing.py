"""Drawing: the operators of a block and how they are wired, as SVG."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx

from ..blocks.block import Block
from ..outline.picture.boxes import LINE, PAD, Box, Line
from ..outline.picture.routing import Margins, route
from ..outline.picture.svg import TITLE, plain_graph
from ..outline.picture.text import width
from .facts import Facts

_MARGINS = Margins(left=14.0, top=4.0, right=14.0, band=4.0, gutter=34.0)
_LEAST, _BESIDE = 170.0, 17.0
"""how wide a box is at least, and what is free beside its title"""
_AXES = "NCHW"


def drawing(block: Block) -> str:
    """The operators of a block with its default hyper-parameters, as it is inserted for TensorRT at opset 17.

    Returns
    -------
    str
        SVG that needs no other file: one box for each operator with the parameters that it has and the shape of what it
        gives, one row for each step from the block's input to its output.
    """
    facts = Facts(block)
    model = onnx.shape_inference.infer_shapes(facts.model, data_prop=True)
    boxes, lines = _graph(model.graph, block.parameters(facts.site))
    sizes = [0.0] * (1 + max(box.band for box in boxes))
    for box in boxes:
        sizes[box.band] = max(sizes[box.band], box.height)
    return plain_graph(f"{block.spelled}: {block.title}", route(boxes, lines, [("", size) for size in sizes], _MARGINS))


def _graph(graph: onnx.GraphProto, parameters: Collection[str]) -> tuple[list[Box], list[Line]]:
    """The boxes in rows and columns, and the lines between them."""
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    given, result = graph.input[0].name, graph.output[0].name
    boxes = {given: _box("x", "end", "x", [shapes[given]])}
    for node in graph.node:
        used = list(dict.fromkeys(filter(None, (_parameter(name, parameters) for name in node.input))))
        text = [_attributes(node), ", ".join(used), shapes.get(node.output[0], "")]
        box = _box(node.output[0], "layer" if used else "operator", node.op_type, text)
        boxes.update(dict.fromkeys(node.output, box))
    end = _box("y", "end", "y", [shapes[result]])
    lines = [Line(boxes[name], boxes[node.output[0]]) for node in graph.node for name in _read(node, boxes)]
    lines.append(Line(boxes[result], end))
    every = [*dict.fromkeys(boxes.values()), end]
    _rows(every, lines)
    _columns(sorted(every, key=lambda box: box.band), lines)
    return every, lines


def _read(node: onnx.NodeProto, boxes: Mapping[str, Box]) -> list[str]:
    """What a node computes with, constants left out, each once."""
    return list(dict.fromkeys(name for name in node.input if name in boxes))


def _rows(boxes: Sequence[Box], lines: Sequence[Line]) -> None:
    """Put each box, given in the order of the graph, as late as the boxes that read it allow; the first row is 0."""
    after: dict[Box, list[Box]] = {}
    for line in lines:
        after.setdefault(line.source, []).append(line.target)
    for box in reversed(boxes):
        box.band = min((each.band for each in after.get(box, ())), default=0) - 1
    first = min(box.band for box in boxes)
    for box in boxes:
        box.band -= first
    boxes[0].band = 0


def _columns(boxes: Sequence[Box], lines: Sequence[Line]) -> None:
    """Put each box, given from above to below, under a box that it reads if nothing stands there yet; else aside."""
    before: dict[Box, list[Box]] = {}
    for line in lines:
        before.setdefault(line.target, []).append(line.source)
    last: list[Box] = []
    """the lowest box of each column"""
    for box in boxes:
        below = [source.column for source in before.get(box, ()) if last[source.column] is source]
        free = [column for column, each in enumerate(last) if column and each.band < box.band]
        box.column = min(below or free or [len(last)])
        last[box.column : box.column + 1] = [box]


def _box(key: str, role: str, title: str, text: Sequence[str]) -> Box:
    lines = tuple(filter(None, text))
    wide = max(_LEAST, width(title, TITLE, bold=True) + _BESIDE)
    box = Box(key, role, role, None, title, lines, width=wide)
    box.height = PAD + LINE * (1 + len(lines))
    return box


def _parameter(name: str, parameters: Collection[str]) -> str:
    """The module whose parameters a constant is made of, or the parameter that it is; "" for any other constant."""
    key = name.removeprefix("block.")
    module = key.rpartition(".")[0]
    if module and any(each.startswith(f"{module}.") for each in parameters):
        return module
    return key if key in parameters else ""


def _attributes(node: onnx.NodeProto) -> str:
    """The size of a window, the groups and the axes of a node, as far as it has them."""
    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    texts = ["×".join(map(str, values.get("kernel_shape", ())))]
    texts += [f"{values['group']} groups"] if values.get("group", 1) > 1 else []
    texts += [f"over {', '.join(_AXES[axis] for axis in values['axes'])}"] if "axes" in values else []
    return ", ".join(filter(None, texts))


def _shape(value: onnx.ValueInfoProto) -> str:
    sizes = [str(each.dim_value or each.dim_param or "?") for each in value.type.tensor_type.shape.dim]
    return "×".join(sizes[1:] if sizes and sizes[0] == "1" and len(sizes) == 4 else sizes)
