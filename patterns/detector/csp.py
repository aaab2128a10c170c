"""CSP blocks of RTMDet and PP-YOLOE, and the depthwise Bottleneck of YOLOX-nano and RTMDet."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, link, pointwise, unstrided
from graphsurgery.patterns.detector.gates import gated
from graphsurgery.recognition import Chain, Expression, OneOf, Op, Part, Pattern, Value

_usual = (active, unstrided)


def _separable(x: Expression, name: str) -> Part:
    depth = Part(f"{name}.dconv", "DWConv", x, where=_usual)
    return Part(f"{name}.pconv", "Conv", depth, where=(*_usual, pointwise))


_x = Value()
_first = OneOf(Part("conv1", "Conv", _x, where=_usual), _separable(_x, "conv1"))
_second = _separable(_first, "conv2")
_ABOUT = "convolution, or a depthwise separable one, then such a one (YOLOX-nano; RTMDet: CSPNeXtBlock)"
DEPTHWISE = Pattern("Bottleneck", _ABOUT, Op("Add", _x, _second), aliases=("CSPNeXtBlock",))
DEPTHWISE_STRAIGHT = Pattern("Bottleneck", _ABOUT, _second, aliases=("CSPNeXtBlock",), alone=False)

_in = Value()
_long = Chain("blocks", link("Bottleneck"), Part("main_conv", "Conv", _in, where=pointwise))
_joined = Op("Concat", _long, Part("short_conv", "Conv", _in, where=pointwise))
CSPNEXT = Pattern(
    "CSPLayer",
    "cross-stage-partial block with channel attention (RTMDet)",
    Part("final_conv", "Conv", gated(_joined), where=pointwise),
)

_p = Value()
_deep = Chain("blocks", link("Bottleneck", "SPP"), Part("conv2", "Conv", _p, where=pointwise))
_both = Op("Concat", Part("conv1", "Conv", _p, where=pointwise), _deep)
CSPRES = Pattern(
    "CSPResStage",
    "cross-stage-partial stage, with effective squeeze-and-excitation in the backbone (PP-YOLOE)",
    Part("conv3", "Conv", OneOf(_both, gated(_both)), where=pointwise),
    aliases=("CSPStage",),
)
