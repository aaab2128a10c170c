"""Wrong versions of an inserted block: other operators, attributes and constants, and edges that lead elsewhere.

What a record reads from the model, the weights, is not altered: a block with other weights is another block of its
kind, and no wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphsurgery.modelfile.record import Insertion

_ONE_INPUT = ("Identity", "Relu", "Sigmoid", "HardSigmoid", "Abs", "Tanh", "Softplus", "Neg")
_TWO_INPUTS = ("Add", "Sub", "Mul", "Div", "Max", "Min")
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2")
_NOTHING = "a constant"
_SWAPPED: dict[str, Sequence[str]] = {
    **dict.fromkeys(("Relu", "Sigmoid", "HardSigmoid", "Erf", "Exp", "Sqrt", "Abs"), _ONE_INPUT),
    **dict.fromkeys(_TWO_INPUTS, _TWO_INPUTS),
    **dict.fromkeys(_REDUCTIONS, _REDUCTIONS),
    "Softmax": ("Identity", "Sigmoid", "LogSoftmax", "Hardmax"),
    "AveragePool": ("MaxPool",),
    "MaxPool": ("AveragePool",),
    "GlobalAveragePool": ("GlobalMaxPool",),
}


@dataclass(frozen=True)
class Mutant:
    """A whole model with a block of which one thing is another."""

    kind: str
    """operator, attribute, constant, edge, end"""
    what: str
    model: onnx.ModelProto


Alter = Callable[[onnx.GraphProto], None]


INSIDE = ("operator", "attribute", "constant", "edge")


def mutants(
    model: onnx.ModelProto, record: Insertion, limit: int | None = None, kinds: Sequence[str] = INSIDE
) -> Iterator[Mutant]:
    """Valid wrong versions, the kinds in turn, ``limit`` of them at most; always the same ones."""
    found = 0
    seen = {model.graph.SerializeToString(deterministic=True)}
    block = _Block(model, record)
    rows = [[(kind, *each) for each in _spread(list(_FIND[kind](block)))] for kind in kinds]
    for kind, what, alter in (each for row in zip_longest(*rows) for each in row if each):
        if found == limit:
            return
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        alter(wrong.graph)
        key = wrong.graph.SerializeToString(deterministic=True)
        if key not in seen and _runs(wrong):
            seen.add(key)
            found += 1
            yield Mutant(kind, what, wrong)


class _Block:
    """What the alterations have to know of the block."""

    def __init__(self, model: onnx.ModelProto, record: Insertion) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        self.types = {value.name: _type(value) for value in values}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types |= {tensor.name: (tensor.data_type, *tensor.dims) for tensor in model.graph.initializer}
        self.id = record.id
        self.names = set(record.nodes)
        self.graph = model.graph
        self.nodes = [(i, node) for i, node in enumerate(model.graph.node) if node.name in self.names]
        self.site, self.output = record.site.tensor, record.block_output
        self.weights = _weights(record)

        made = [name for node in model.graph.node[: self.nodes[0][0]] for name in node.output]
        self.before = [name for name in made if name != self.site]
        """tensors of the model that are there before the block"""

    def label(self, node: onnx.NodeProto) -> str:
        return self.short(node.name)

    def short(self, name: str) -> str:
        """The last part of a name in the block."""
        return name.rpartition("/")[2].removeprefix(f"{self.id}.")

    def edges(self, tensor: str, *, inside: bool) -> list[tuple[int, int]]:
        """(node, place) of the block or of the rest that read a tensor."""
        return [
            (i, place)
            for i, node in enumerate(self.graph.node)
            if (node.name in self.names) is inside
            for place, name in enumerate(node.input)
            if name == tensor
        ]

    def nothing(self) -> onnx.TensorProto:
        """A constant in the shape of the site."""
        kind, *shape = self.types[self.site]
        assert kind == onnx.TensorProto.FLOAT
        values = np.random.default_rng(9).standard_normal(shape).astype(np.float32)
        return numpy_helper.from_array(values, _NOTHING)

    def alike(self, one: str, other: str) -> bool:
        return one != other and one in self.types and self.types[one] == self.types.get(other)


def _type(value: onnx.ValueInfoProto) -> tuple[object, ...]:
    dims = value.type.tensor_type.shape.dim
    return (value.type.tensor_type.elem_type, *(dim.dim_value or dim.dim_param for dim in dims))


def _weights(record: Insertion) -> set[str]:
    """Initializers that the record reads parameters from."""
    parts = [part for entry in record.stored.values() for part in (entry, *entry.get("parts", ()))]
    return {part["initializer"] for part in parts if "initializer" in part}


Alterations = Iterator[tuple[str, Alter]]


def _operators(block: _Block) -> Alterations:
    for i, node in block.nodes:
        for other in _SWAPPED.get(node.op_type, ()):
            if other != node.op_type:
                yield f"{block.label(node)} -> {other}", _as(i, other)
        for place, name in enumerate(node.input):
            if node.op_type != "Identity" and name not in block.constants and block.alike(name, node.output[0]):
                yield f"{block.label(node)} left out, its input {place} passed on", _passing(i, place)
        if node.op_type == "Clip":
            for place, bound in ((1, "lower"), (2, "upper")):
                if len(node.input) > place:
                    yield f"{block.label(node)} without its {bound} bound", _without_input(i, place)


def _attributes(block: _Block) -> Alterations:
    for i, node in block.nodes:
        for place, attribute in enumerate(node.attribute):
            what = f"{block.label(node)}: {attribute.name}"
            if attribute.name != "value":
                yield f"{what} left to its default", _without_attribute(i, place)
            for value in _other_values(attribute):
                if value == helper.get_attribute_value(attribute):
                    continue
                yield (
                    f"{what} = {f'{value:.3g}' if isinstance(value, float) else value}",
                    _with_attribute(i, attribute.name, value),
                )
        present = {attribute.name for attribute in node.attribute}
        if node.op_type == "AveragePool" and "count_include_pad" not in present:
            yield f"{block.label(node)}: count_include_pad = 1", _with_attribute(i, "count_include_pad", 1)
        if node.op_type == "Softmax" and "axis" not in present:
            yield f"{block.label(node)}: axis = 1", _with_attribute(i, "axis", 1)


def _other_values(attribute: onnx.AttributeProto) -> Iterator[Any]:
    if attribute.type == onnx.AttributeProto.FLOAT:
        yield from (attribute.f * factor for factor in (2.0, 0.5, 1.1, 0.0))
    elif attribute.type == onnx.AttributeProto.INT:
        yield from (attribute.i + step for step in (1, -1))
    elif attribute.type == onnx.AttributeProto.INTS:
        values = list(attribute.ints)
        for i in range(len(values) - 1):
            yield [*values[:i], values[i + 1], values[i], *values[i + 2 :]]
        for i in range(len(values)):
            yield [*values[:i], values[i] + 1, *values[i + 1 :]]
        half = len(values) // 2
        for i in range(half):  # pads that shift the window by one
            yield [v + (j == i) - (j == i + half) for j, v in enumerate(values)]


def _constants(block: _Block) -> Alterations:
    for name in dict.fromkeys(name for _, node in block.nodes for name in node.input):
        tensor = block.constants.get(name)
        if tensor is None or name in block.weights:
            continue
        values = numpy_helper.to_array(tensor)
        role = f"constant {block.short(name)}"
        altered = _other_floats(values) if values.dtype.kind == "f" else _other_integers(values)
        for what, other in altered:
            yield f"{role} {what}", _with_constant(name, other.astype(values.dtype))


def _other_floats(values: Any) -> Iterator[tuple[str, Any]]:
    yield "times 1.1", values * 1.1
    yield "times 0.9", values * 0.9
    yield "negated", -values
    yield "zero", values * 0
    yield "plus 0.05", values + 0.05
    if values.size > 1:
        once = values.copy()
        once.flat[values.size // 2] = once.flat[values.size // 2] * 1.2 + 0.05
        yield "another in one element", once
        for axis, size in enumerate(values.shape):
            if size > 1:
                yield f"reversed along axis {axis}", np.flip(values, axis)
                yield f"rolled along axis {axis}", np.roll(values, 1, axis)


def _other_integers(values: Any) -> Iterator[tuple[str, Any]]:
    for i in range(values.size):
        for step in (1, -1):
            other = values.copy()
            other.flat[i] += step
            yield f"[{i}] {step:+d}", other
        if i + 1 < values.size:
            other = values.copy()
            other.flat[i], other.flat[i + 1] = values.flat[i + 1], values.flat[i]
            yield f"[{i}] and [{i + 1}] exchanged", other


def _edges(block: _Block) -> Alterations:
    """Inputs of nodes that are another tensor of the block of the same type and shape, or each other."""
    before = [block.site]
    for i, node in block.nodes:
        for place, name in enumerate(node.input):
            if name in block.constants:
                others: list[str] = [
                    other
                    for other in block.constants
                    if block.alike(name, other)
                    and other.split(".")[:-1]
                    and name not in block.weights
                    and _within(block, other)
                ]
            else:
                others = [other for other in before if block.alike(name, other)]
            for other in others:
                yield f"{block.label(node)}: input {place} is {block.short(other)}", _reading(i, place, other)
        for place in range(len(node.input) - 1):
            if block.alike(node.input[place], node.input[place + 1]) or node.op_type in ("Sub", "Div", "MatMul"):
                yield f"{block.label(node)}: inputs {place} and {place + 1} exchanged", _exchanged(i, place)
        before += [name for name in node.output if name]


def _within(block: _Block, name: str) -> bool:
    return any(name in node.input for _, node in block.nodes)


def _ends(block: _Block) -> Alterations:
    """What gives the output of the block, what its consumers read, and what it reads itself, is another tensor."""
    inner = [node.output[0] for _, node in block.nodes if block.output not in node.output]
    upstream = [name for name in block.before if block.alike(name, block.site)]
    inner = [name for name in inner if block.alike(name, block.output)]
    for name in (*inner, block.site, *upstream, _NOTHING):
        yield f"the output is {block.short(name)}", _giving(block, name)
    consumers, readers = block.edges(block.output, inside=False), block.edges(block.site, inside=True)
    for edges, end, others in (
        (consumers, "consumer", (*inner, block.site, *upstream, _NOTHING)),
        (readers, "reader of the site", (*upstream, _NOTHING)),
    ):
        for other in others:
            yield f"every {end} reads {block.short(other)}", _all_reading(block, edges, other)
            for i, place in edges if len(edges) > 1 else ():
                what = f"{block.label(block.graph.node[i])}, a {end}, reads {block.short(other)}"
                yield what, _all_reading(block, [(i, place)], other)


_FIND: dict[str, Callable[[_Block], Alterations]] = {
    "operator": _operators,
    "attribute": _attributes,
    "constant": _constants,
    "edge": _edges,
    "end": _ends,
}


# ------------------------------------------------------------------ alterations


def _as(i: int, op_type: str) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        node = graph.node[i]
        node.op_type = op_type
        if op_type in _ONE_INPUT:
            del node.attribute[:]
        if op_type in ("Relu", "Identity", "Abs"):
            del node.input[1:]

    return alter


def _passing(i: int, place: int) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        node = graph.node[i]
        node.CopyFrom(helper.make_node("Identity", [node.input[place]], node.output[:1], name=node.name))

    return alter


def _without_input(i: int, place: int) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        graph.node[i].input[place] = ""

    return alter


def _without_attribute(i: int, place: int) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        del graph.node[i].attribute[place]

    return alter


def _with_attribute(i: int, name: str, value: Any) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        node = graph.node[i]
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return alter


def _with_constant(name: str, values: Any) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(values, name))

    return alter


def _reading(i: int, place: int, other: str) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        graph.node[i].input[place] = other

    return alter


def _all_reading(block: _Block, edges: Sequence[tuple[int, int]], other: str) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        for i, place in edges:
            graph.node[i].input[place] = other
        if other == _NOTHING:
            graph.initializer.append(block.nothing())

    return alter


def _exchanged(i: int, place: int) -> Alter:
    def alter(graph: onnx.GraphProto) -> None:
        node = graph.node[i]
        node.input[place], node.input[place + 1] = node.input[place + 1], node.input[place]

    return alter


def _giving(block: _Block, other: str) -> Alter:
    """The node that gives the output is an Identity of another tensor."""
    (last,) = (i for i, node in block.nodes if block.output in node.output)

    def alter(graph: onnx.GraphProto) -> None:
        name = graph.node[last].name
        graph.node[last].CopyFrom(helper.make_node("Identity", [other], [block.output], name=name))
        if other == _NOTHING:
            graph.initializer.append(block.nothing())

    return alter


# ------------------------------------------------------------------ which of them


def _spread(found: list[Any]) -> list[Any]:
    """The same in an order in which the first few come from everywhere; always the same order."""
    order = np.random.default_rng(len(found)).permutation(len(found))
    return [found[i] for i in order]


def _runs(model: onnx.ModelProto) -> bool:
    """Whether the model is one at all: checked, of inferable shapes, and onnxruntime loads it."""
    from graphsurgery.errors import CannotRun, NoKernel
    from graphsurgery.runtime.sample_inputs import graph_inputs, random_feeds
    from graphsurgery.runtime.session import session

    try:
        onnx.checker.check_model(model)
        before = model.graph.output[0]
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0]
        if _type(before) != _type(inferred):
            return False
        session(model.SerializeToString(), "cpu", optimise=False).run(random_feeds(graph_inputs(model), 8))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, CannotRun, NoKernel):
        return False
    return True
