"""What several patterns ask of their parts."""

from __future__ import annotations

from collections.abc import Callable

from graphsurgery.recognition import Expression, OneOf, Op, Part, RecognisedBlock

Link = Callable[[Expression, str], Expression]


def pointwise(conv: RecognisedBlock) -> bool:
    """Whether a convolution has a 1x1 kernel and stride 1."""
    return conv.facts.get("kernel") == (1, 1) and conv.facts.get("stride") == (1, 1)


def active(conv: RecognisedBlock) -> bool:
    """Whether a convolution ends with an activation."""
    return conv.facts.get("activation") is not None


def linear(conv: RecognisedBlock) -> bool:
    """Whether a convolution ends without an activation."""
    return not active(conv)


def unstrided(conv: RecognisedBlock) -> bool:
    """Whether a convolution keeps the size of the map."""
    return conv.facts.get("stride") == (1, 1)


def spatial(conv: RecognisedBlock) -> bool:
    """Whether a convolution looks at more than one position."""
    return conv.facts.get("kernel") not in ((1, 1), None)


def part(block: RecognisedBlock, name: str) -> RecognisedBlock:
    """A part by its name."""
    return dict(block.parts)[name]


def link(*types: str) -> Link:
    """The step of a chain: one block of any of these types."""
    return lambda previous, name: Part(name, types, previous)


def _ends_in_a_gate(conv: RecognisedBlock) -> bool:
    """Whether onnxruntime has taken the gate into the convolution."""
    return conv.facts.get("activation") in ("sigmoid", "hardsigmoid")


def gated(y: Expression) -> Op:
    """``y`` times a gate from its means, one convolution or two: SE, effective SE, channel attention."""
    means = Op(("GlobalAveragePool", "ReduceMean", "AveragePool"), y, first=True)
    one = Part("fc", "Conv", means)
    inner = Part("fc1", "Conv", means, where=active)
    two = Part("fc2", "Conv", inner)
    gate = Op(("Sigmoid", "HardSigmoid", "Clip"), OneOf(one, two))
    scaled = OneOf(
        gate, Op(("Clip", "Div", "Mul"), OneOf(Op("Clip", Op("Add", OneOf(one, two))), Op("Add", OneOf(one, two))))
    )
    fused = Part("fc", "Conv", means, where=_ends_in_a_gate), Part("fc2", "Conv", inner, where=_ends_in_a_gate)
    return Op("Mul", y, OneOf(scaled, *fused))
