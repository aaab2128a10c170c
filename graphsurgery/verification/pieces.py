"""Pieces of a block's operators: the two sides of every kink and bound, and what a small epsilon decides.

A Clip that nothing leaves could as well not be there, and no comparison would tell. So each operator with a kink is
taken for several pieces (below its lower bound, between the two, above the upper), and each piece gives a *rival*: the
same block without it, which does there what it does on the other side. Where inputs and weights make the rival's output
another one, the piece is exercised: a block that is wrong there would not have passed.

What is continuous and smooth (Sigmoid, Exp, Softmax, means) needs no such inputs: another function shows anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_STEEPER = 1.05
"""A slope that is off by this much shows in any input that reaches it."""
_LARGER = 1.5
_TWICE, _NEAR = 2.0, 1.1
"""What the epsilon of a rival is, in those of the block; the second where its own is in doubt, which takes longer."""
_EPSILON = 1e-2
"""Constants up to this that are added before a division or a root are there for what is almost zero."""
_DIVIDING = ("Sqrt", "Div", "Reciprocal", "Pow")


@dataclass(frozen=True)
class Piece:
    """One piece of one operator."""

    what: str
    """in words: "Clip: values below its lower bound" """
    output: str
    """of the operator"""
    others: Sequence[NodeProto]
    """what the rival has in its place"""
    constants: Sequence[TensorProto]
    """what these compute with on top"""

    def rival(self, block: ModelProto) -> ModelProto:
        """The whole block as it would be without the piece; ``block``: with whatever weights."""
        rival = ModelProto()
        rival.CopyFrom(block)
        del rival.graph.node[:]
        for node in block.graph.node:
            rival.graph.node.extend(self.others if node.output[0] == self.output else [node])
        rival.graph.initializer.extend(self.constants)
        return rival


def pieces(block: ModelProto, *, doubtful: bool = False) -> Iterator[Piece]:
    """Those of all operators of a block, in the order of its nodes.

    ``doubtful``: whether it is not what its template writes, so that any of its numbers can be another.
    """
    constants = Constants(block, _NEAR if doubtful else _TWICE)
    for node in block.graph.node:
        rivals = [*_RIVALS.get(node.op_type, _none)(constants, node), *_small(constants, node, block.graph.node)]
        rivals += _overflowing(node, block.graph.node)
        rivals += _normalised(constants, node, block.graph.node)
        for what, others in rivals:
            yield Piece(f"{node.op_type}: {what}", node.output[0], others, constants.added(others))


Rivals = Iterator[tuple[str, Sequence[NodeProto]]]
"""(what the piece is, the nodes in place of the operator)"""


class Constants:
    """What a block computes with, and what its rivals do."""

    def __init__(self, block: ModelProto, epsilons: float) -> None:
        self.epsilons = epsilons
        """how many times as large those of the rivals are"""
        self.values = {tensor.name: tensor for tensor in block.graph.initializer}
        self.values |= {node.output[0]: node.attribute[0].t for node in block.graph.node if node.op_type == "Constant"}
        self._kind = block.graph.input[0].type.tensor_type.elem_type
        self._added: dict[str, TensorProto] = {}

    def added(self, nodes: Sequence[NodeProto]) -> list[TensorProto]:
        """Those of the rivals that these nodes read."""
        read = {name for node in nodes for name in node.input}
        return [tensor for name, tensor in self._added.items() if name in read]

    def scalar(self, value: float, like: NodeProto) -> str:
        """The name of a constant of one number, in the type that the node computes in."""
        kind = next((self.values[name].data_type for name in like.input if name in self.values), self._kind)
        return self._add(f"{like.output[0]}/{value!r}", np.asarray(value), kind)

    def twice(self, name: str) -> str:
        """The name of a constant of twice the size."""
        tensor = self.values[name]
        return self._add(f"{name}/twice", 2 * numpy_helper.to_array(tensor).astype(np.float64), tensor.data_type)

    def is_epsilon(self, name: str) -> bool:
        """Whether it is a small positive constant."""
        if (tensor := self.values.get(name)) is None:
            return False
        values = numpy_helper.to_array(tensor).astype(np.float64)
        return values.size > 0 and values.min() > 0 and bool(values.max() <= _EPSILON)

    def _add(self, name: str, values: Any, kind: int) -> str:
        self._added[name] = numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), name)
        return name


def _none(constants: Constants, node: NodeProto) -> Rivals:
    return iter(())


def _small(constants: Constants, node: NodeProto, nodes: Iterable[NodeProto]) -> Rivals:
    """An epsilon in a sum, or in a largest value, that something is divided by, or that a root is taken of."""
    epsilon = next((name for name in node.input if constants.is_epsilon(name)), None)
    if epsilon is None or node.op_type not in ("Add", "Max"):
        return
    divisors = {each.input[1 if each.op_type == "Div" else 0] for each in nodes if each.op_type in _DIVIDING}
    if node.output[0] in divisors:
        yield "values as small as its epsilon", [_with_inputs(node, {epsilon: constants.twice(epsilon)})]


def _overflowing(node: NodeProto, nodes: Iterable[NodeProto]) -> Rivals:
    """What takes the largest value off a tensor, so that no exponential of it leaves the type."""
    largest = {each.output[0]: each.input[0] for each in nodes if each.op_type == "ReduceMax"}
    taken = {each.input[1] for each in nodes if each.op_type == "Sub" and largest.get(each.input[1]) == each.input[0]}
    if node.op_type == "Sub" and node.input[1] in taken:
        yield "values too large for an exponential", _same(node)
    if node.output[0] in taken:
        smallest = _with_inputs(node, {})
        smallest.op_type = "ReduceMin"
        yield "values too far apart for an exponential", [smallest]


def _normalised(constants: Constants, node: NodeProto, nodes: Iterable[NodeProto]) -> Rivals:
    """A quotient whose size a normalisation takes out again: of two values it leaves little more than a sign."""
    if node.op_type != "Div":
        return
    behind = set(node.output)
    for each in nodes:
        if not behind.isdisjoint(each.input):
            if each.op_type in _NORMALISING:
                larger = _step(node, "Div", *node.input, to="quotient")
                factor = constants.scalar(_LARGER, node)
                yield "the size of its result", [larger, _step(node, "Mul", larger.output[0], factor)]
                return
            behind |= set(each.output)


def _with_inputs(node: NodeProto, renamed: Mapping[str, str]) -> NodeProto:
    other = NodeProto()
    other.CopyFrom(node)
    other.input[:] = [renamed.get(name, name) for name in node.input]
    return other


def _with_epsilon(node: NodeProto, epsilon: float) -> NodeProto:
    other = NodeProto()
    other.CopyFrom(node)
    del other.attribute[:]
    other.attribute.extend(attribute for attribute in node.attribute if attribute.name != "epsilon")
    other.attribute.append(helper.make_attribute("epsilon", epsilon))
    return other


def _same(node: NodeProto) -> list[NodeProto]:
    return [helper.make_node("Identity", node.input[:1], node.output)]


def _step(node: NodeProto, op_type: str, *inputs: str, to: str = "") -> NodeProto:
    """A node that takes part in the place of ``node``; gives its output, or one of its own."""
    output = f"{node.output[0]}/{to}" if to else node.output[0]
    return helper.make_node(op_type, inputs, [output])


def _relu(constants: Constants, node: NodeProto) -> Rivals:
    yield "negative values", _same(node)
    yield "positive values", [_step(node, "Sub", node.input[0], node.input[0])]


def _leaky(constants: Constants, node: NodeProto) -> Rivals:
    yield "negative values", _same(node)


def _abs(constants: Constants, node: NodeProto) -> Rivals:
    yield "negative values", _same(node)
    yield "positive values", [_step(node, "Neg", node.input[0])]


def _rounding(constants: Constants, node: NodeProto) -> Rivals:
    yield "values that are not whole", _same(node)


def _clip(constants: Constants, node: NodeProto) -> Rivals:
    for bound, place, side in (("min", 1, "below its lower bound"), ("max", 2, "above its upper bound")):
        other = NodeProto()
        other.CopyFrom(node)
        if len(node.input) > place and node.input[place]:
            other.input[place] = ""
        elif any(attribute.name == bound for attribute in node.attribute):
            del other.attribute[:]
            other.attribute.extend(attribute for attribute in node.attribute if attribute.name != bound)
        else:
            continue
        yield f"values {side}", [other]
    scaled = _step(node, "Mul", node.input[0], constants.scalar(_STEEPER, node), to="steeper")
    yield "values between its bounds", [scaled, _with_inputs(node, {node.input[0]: scaled.output[0]})]


def _hard_sigmoid(constants: Constants, node: NodeProto) -> Rivals:
    given = {attribute.name: attribute.f for attribute in node.attribute}
    return _ramps(constants, node, given.get("alpha", 0.2), given.get("beta", 0.5), weighted=False)


def _hard_swish(constants: Constants, node: NodeProto) -> Rivals:
    return _ramps(constants, node, 1 / 6, 0.5, weighted=True)


def _ramps(constants: Constants, node: NodeProto, alpha: float, beta: float, *, weighted: bool) -> Rivals:
    """alpha x + beta without one of the bounds 0 and 1; or with another slope between them."""
    for what, slope, bounds in (
        ("values below its lower bound", alpha, (("Min", 1.0),)),
        ("values above its upper bound", alpha, (("Max", 0.0),)),
        ("values between its bounds", alpha * _STEEPER, (("Min", 1.0), ("Max", 0.0))),
    ):
        steps = [_step(node, "Mul", node.input[0], constants.scalar(slope, node), to="scaled")]
        steps.append(_step(node, "Add", steps[-1].output[0], constants.scalar(beta, node), to="shifted"))
        for op_type, bound in bounds:
            steps.append(_step(node, op_type, steps[-1].output[0], constants.scalar(bound, node), to=op_type))
        last = (
            _step(node, "Mul", node.input[0], steps[-1].output[0])
            if weighted
            else _step(node, "Identity", steps[-1].output[0])
        )
        yield what, [*steps, last]


def _largest(constants: Constants, node: NodeProto) -> Rivals:
    """Max and Min without one of their inputs, which only gives its shape."""
    for place, name in enumerate(node.input if len(node.input) > 1 else ()):
        rest = [other for i, other in enumerate(node.input) if i != place]
        nothing = _step(node, "Sub", name, name, to="nothing")
        kept = _step(node, node.op_type, *rest, to="rest")
        yield (
            f"values for which input {place} decides",
            [nothing, kept, _step(node, "Add", kept.output[0], nothing.output[0])],
        )


def _where(constants: Constants, node: NodeProto) -> Rivals:
    opposite = _step(node, "Not", node.input[0], to="not")
    for what, op_type in (("true conditions", "And"), ("false conditions", "Or")):
        always = _step(node, op_type, node.input[0], opposite.output[0], to="always")
        yield what, [opposite, always, _step(node, "Where", always.output[0], *node.input[1:])]


def _normalisation(constants: Constants, node: NodeProto) -> Rivals:
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    yield "variances as small as its epsilon", [_with_epsilon(node, constants.epsilons * epsilon)]


_NORMALISING = ("InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization")
_RIVALS: dict[str, Callable[[Constants, NodeProto], Rivals]] = {
    "Relu": _relu,
    "LeakyRelu": _leaky,
    "PRelu": _leaky,
    "Elu": _leaky,
    "Celu": _leaky,
    "Selu": _leaky,
    "ThresholdedRelu": _leaky,
    "Abs": _abs,
    **dict.fromkeys(("Floor", "Ceil", "Round"), _rounding),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    **dict.fromkeys(("Max", "Min"), _largest),
    "Where": _where,
    **dict.fromkeys(_NORMALISING, _normalisation),
}
