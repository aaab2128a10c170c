"""ShuffleV2Block: one half of the channels convolved, then the channels of both halves alternate (ShuffleNetV2)."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, linear, pointwise, unstrided
from graphsurgery.recognition import Expression, Half, OneOf, Op, Part, Pattern, RecognisedBlock, Value


def _strided(conv: RecognisedBlock) -> bool:
    return not unstrided(conv)


def _shuffled(halves: Expression) -> Op:
    groups = Op("Reshape", halves, first=True)
    return Op("Reshape", Op("Transpose", groups), first=True)


def _branch(x: Expression, *, strided: bool) -> Part:
    first = Part("branch2.0", "Conv", x, where=(pointwise, active))
    depth = Part("branch2.3", "DWConv", first, where=(linear, _strided if strided else unstrided))
    return Part("branch2.5", "Conv", depth, where=(pointwise, active))


_split, _x = Value(), Value()
_short = Part("branch1.0", "DWConv", _x, where=(linear, _strided))
_unit = Op("Concat", Half(_split, 0), _branch(Half(_split, 1), strided=False))
_halving = Op("Concat", Part("branch1.2", "Conv", _short, where=(pointwise, active)), _branch(_x, strided=True))
SHUFFLE = Pattern(
    "ShuffleV2Block",
    "one half of the channels convolved, then the channels of both halves alternate (ShuffleNetV2)",
    # the next one shuffles what it reads in FastestDet's
    OneOf(_shuffled(_unit), _shuffled(_halving), _halving),
    aliases=("ShuffleUnit",),
)
