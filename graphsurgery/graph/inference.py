"""ONNX's inference of shapes, kept from filling the memory.

Asked to follow values (``data_prop``), it keeps one message for every element of what may be a shape, known or not: a
vector that is said to have 1e9 elements costs 100 GB, though nobody computes it. So the shapes are inferred without
values first. What they leave open is inferred with values, if the vectors are short enough for that, and without the
nodes that could make one of a length that has not been found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx
from onnx import shape_inference

from ..modelfile import limits
from ..modelfile.operators import operator
from ..modelfile.subgraphs import subgraphs

_Shape = list[int | None] | None

_LENGTHENING = frozenset(
    {"CenterCropPad", "ConstantOfShape", "Expand", "Flatten", "OneHot", "Pad", "Range", "Reshape", "Resize", "Tile"}
    | {"TopK", "Upsample"}
)
"""operators that can make a long vector out of a few numbers, or out of a map"""
_BY_VALUE = frozenset(
    {"AffineGrid", "CenterCropPad", "Col2Im", "DFT", "Expand", "OneHot", "Pad", "Range", "Reshape", "Resize", "STFT"}
    | {"Slice", "Split", "SplitToSequence", "Squeeze", "Tile", "TopK", "Unsqueeze", "Upsample"}
)
"""operators the shape of whose output depends on the values of inputs behind the first; so do reductions"""
_BY_FIRST_VALUE = frozenset({"ConstantOfShape", "Loop", "Range"})
"""those for which the values of the first count, too"""
_HIDDEN = "Hidden"
"""an operator that the inference does not know"""


def infer(model: onnx.ModelProto, *, strict: bool = False) -> onnx.ModelProto:
    """A copy of a model with the types of its tensors, as far as ONNX can tell; ``strict``: misfits are errors.

    Raises whatever ONNX raises.
    """
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    hidden = [i for i, node in enumerate(nodes) if operator(node) == "Split" and miscounts(node)]
    plain = _without(hidden, model, nodes, strict=strict, data_prop=False)
    if not _depend_on_computed_values(graphs, nodes):
        return plain
    shapes = {name: shape for graph in _graphs(plain.graph) for name, shape in _shapes(graph)}
    vectors = (shape[0] or 0 for shape in shapes.values() if shape is not None and len(shape) == 1)
    is_open = {name for node in nodes for name in node.output if name and None in (shapes.get(name) or [None])}
    if not is_open or sum(vectors) > limits.INFERRED_VALUES:
        return plain
    lengthening = (i for i, node in enumerate(nodes) if operator(node) in _LENGTHENING)
    hidden += [i for i in lengthening if any(shapes.get(name) in (None, [None]) for name in nodes[i].output if name)]
    return _without(hidden, model, nodes, strict=strict, data_prop=True)


def _depend_on_computed_values(graphs: Iterable[onnx.GraphProto], nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether following values can find more: a shape depends on some that are computed."""
    stored = {tensor.name for graph in graphs for tensor in graph.initializer}
    kinds = [operator(node) for node in nodes]
    stored |= {name for node, kind in zip(nodes, kinds, strict=True) if kind == "Constant" for name in node.output}
    shaped = (node for node, kind in zip(nodes, kinds, strict=True) if _is_shaped(kind))
    return any(name and name not in stored for node in shaped for name in shaping_inputs(node))


def is_static(declared: onnx.TypeProto) -> bool:
    """Whether nothing can be added to a declared type; nothing can to those of sequences and the like."""
    if not declared.HasField("tensor_type"):
        return declared.WhichOneof("value") is not None
    kind = declared.tensor_type
    return kind.HasField("shape") and all(size.HasField("dim_value") for size in kind.shape.dim)


def shaping_inputs(node: onnx.NodeProto) -> Sequence[str]:
    """The inputs on whose values the shapes of the outputs of a node depend; "" for one that is left out."""
    kind = operator(node)
    if not _is_shaped(kind):
        return ()
    return tuple(node.input) if kind in _BY_FIRST_VALUE else tuple(node.input)[1:]


def _is_shaped(kind: str) -> bool:
    """Whether values of inputs tell the shapes of the outputs of an operator."""
    return kind in _BY_VALUE or kind in _BY_FIRST_VALUE or kind.startswith("Reduce")


def _without(
    hidden: Sequence[int], model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], *, strict: bool, data_prop: bool
) -> onnx.ModelProto:
    """Infer types as if some of the nodes were of an unknown operator; ``nodes`` are all of the model."""
    operators = {i: nodes[i].op_type for i in hidden}
    _rename(nodes, dict.fromkeys(hidden, _HIDDEN))
    try:
        result: onnx.ModelProto = shape_inference.infer_shapes(
            model, check_type=strict, strict_mode=strict, data_prop=data_prop
        )
    finally:
        _rename(nodes, operators)
    if hidden:
        _rename([node for graph in _graphs(result.graph) for node in graph.node], operators)
    return result


def _rename(nodes: Sequence[onnx.NodeProto], operators: dict[int, str]) -> None:
    for i, op_type in operators.items():
        nodes[i].op_type = op_type


def miscounts(split: onnx.NodeProto) -> bool:
    """Whether a Split has another number of outputs than it says: the inference makes room for those it says."""
    counts = [attribute.i for attribute in split.attribute if attribute.name == "num_outputs"]
    return counts not in ([], [len(split.output)])


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the subgraphs in it, however deep, always in the same order."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _graphs(inner)


def _shapes(graph: onnx.GraphProto) -> Iterator[tuple[str, _Shape]]:
    """The tensors of a graph and their shapes, as far as they are known."""
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        sizes = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
        yield value.name, sizes if kind.HasField("shape") else None
    for tensor in graph.initializer:
        yield tensor.name, list(tensor.dims)
