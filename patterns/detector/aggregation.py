"""OSABlock and Fire: convolutions side by side or in a chain, concatenated once (VoVNet, SqueezeNet)."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, link, pointwise, spatial
from graphsurgery.patterns.detector.gates import gated
from graphsurgery.recognition import Each, OneOf, Op, Part, Pattern, Value

_x = Value()
_joined = Part("conv_concat", "Conv", Op("Concat", _x, Each("conv_mid", link("Conv"), _x, least=3)), where=pointwise)
_weighted = OneOf(_joined, gated(_joined))
OSA = Pattern(
    "OSABlock",
    "chain of convolutions, all maps concatenated once, then squeezed (VoVNet: one-shot aggregation)",
    OneOf(_weighted, Op("Add", _x, _weighted)),
    where=lambda block: len(block.entries) == 1,
)


_squeezed = Part("squeeze", "Conv", Value(), where=(active, pointwise))
_point = Part("expand1x1", "Conv", _squeezed, where=(active, pointwise))
FIRE = Pattern(
    "Fire",
    "squeezed by a 1x1 convolution, then 1x1 and 3x3 ones side by side (SqueezeNet)",
    Op("Concat", _point, Part("expand3x3", "Conv", _squeezed, where=(active, spatial))),
)
