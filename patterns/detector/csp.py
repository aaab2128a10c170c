"""CSP blocks of YOLOX (depthwise), RTMDet and PP-YOLOE."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, gated, link, pointwise, spatial, unstrided
from graphsurgery.recognition.found import Found
from graphsurgery.recognition.pattern import Chain, OneOf, Op, Part, Pattern, Value


def _usual(conv: Found) -> bool:
    return active(conv) and unstrided(conv)


_x = Value()
_separable = Part(
    "conv2.pconv", "Conv", Part("conv2.dconv", "DWConv", Part("conv1", "Conv", _x, where=_usual)), where=_usual
)
_ABOUT = "convolution, then a depthwise separable one (YOLOX-nano, RTMDet: CSPNeXtBlock)"
DEPTHWISE = Pattern("DepthwiseBottleneck", _ABOUT, Op("Add", _x, _separable), aliases=("CSPNeXtBlock",))
DEPTHWISE_STRAIGHT = Pattern("DepthwiseBottleneck", _ABOUT, _separable, aliases=("CSPNeXtBlock",), alone=False)

_in = Value()
_long = Chain("blocks", link("Bottleneck", "DepthwiseBottleneck"), Part("main_conv", "Conv", _in, where=pointwise))
_joined = Op("Concat", _long, Part("short_conv", "Conv", _in, where=pointwise))
CSPNEXT = Pattern(
    "CSPLayer",
    "cross-stage-partial block with channel attention (RTMDet)",
    Part("final_conv", "Conv", gated(_joined), where=pointwise),
)

_dense = Part("conv2", "Conv", Part("conv1", "Conv", _b := Value(), where=spatial), where=spatial)
REPBLOCK = Pattern("PPBasicBlock", "3x3 convolution, then a RepVGG one (PP-YOLOE)", Op("Add", _b, _dense), alone=False)

_p = Value()
_deep = Chain("blocks", link("Bottleneck", "PPBasicBlock"), Part("conv2", "Conv", _p, where=pointwise))
_both = Op("Concat", Part("conv1", "Conv", _p, where=pointwise), _deep)
CSPRES = Pattern(
    "CSPResStage",
    "cross-stage-partial stage with effective squeeze-and-excitation (PP-YOLOE)",
    Part("conv3", "Conv", OneOf(_both, gated(_both)), where=pointwise),
)
