"""Residual blocks of classification backbones: ResNet's two, the inverted one of MobileNet and EfficientNet."""

from __future__ import annotations

from graphsurgery.patterns.detector.activations import activated
from graphsurgery.patterns.detector.common import active, linear, narrow, pointwise, spatial
from graphsurgery.patterns.detector.gates import gated
from graphsurgery.recognition import Expression, OneOf, Op, Part, Pattern, RecognisedBlock, Value, View


def _resnet(main: Expression, x: Expression) -> OneOf:
    """An activation of a branch added to x, or to x by a convolution (after a pooling in ResNet-D)."""
    pooled = OneOf(x, Op("AveragePool", x), Op("AveragePool", Op("Pad", x, first=True)))
    short = Part("downsample", "Conv", pooled, where=linear)
    summed = OneOf(Op("Add", main, x), Op("Add", main, short))
    # quantisers leave the ReLU out where the zero point does its work
    return OneOf(activated(summed), *(Op("Add", main, other, where=View.clips_at_zero) for other in (x, short)))


_x = Value()
_two = Part("conv2", "Conv", Part("conv1", "Conv", _x, where=active), where=linear)
BASIC = Pattern(
    "BasicBlock",
    "two convolutions and a shortcut, activated after the sum (ResNet-18, -34)",
    _resnet(OneOf(_two, gated(_two)), _x),
)

_y = Value()
_first = Part("conv1", "Conv", _y, where=(narrow, active))
_second = Part("conv2", "Conv", _first, where=active)
_third = Part("conv2b", "Conv", _second, where=(active, spatial))
_deep = OneOf(_second, gated(_second), _third, gated(_third))
_last = Part("conv3", "Conv", _deep, where=(pointwise, linear))
BOTTLENECK = Pattern(
    "ResNetBottleneck",
    "1x1, 3x3 and 1x1 convolution and a shortcut, activated after the sum (ResNet-50, ResNeXt, RegNet, SE-ResNet)",
    _resnet(OneOf(_last, gated(_last)), _y),
)


_z = Value()
_wide = OneOf(_z, Part("expand", "Conv", _z, where=(pointwise, active)))
_depth = Part("depthwise", "DWConv", _wide, where=active)
_linear = Part("depthwise", "DWConv", _wide, where=linear)
_excited = OneOf(_depth, gated(_depth), activated(gated(_linear)))  # MobileNetV3's own activates what is gated
_projected = Part("project", "Conv", _excited, where=(pointwise, linear))
INVERTED = Pattern(
    "InvertedResidual",
    "expansion, depthwise convolution, squeeze-and-excitation or none, projection (MobileNet, EfficientNet)",
    OneOf(_projected, Op("Add", _z, _projected)),
    aliases=("MBConv",),
)


def _widens(conv: RecognisedBlock) -> bool:
    known, wide = conv.facts.get("channels_in"), conv.facts.get("channels_out")
    return spatial(conv) and active(conv) and isinstance(known, int) and isinstance(wide, int) and wide > known


_w = Value()
_expanded = Part("expand", "Conv", _w, where=_widens)
_narrowed = Part("project", "Conv", OneOf(_expanded, gated(_expanded)), where=(pointwise, linear))
FUSED = Pattern(
    "FusedMBConv",
    "3x3 expansion and 1x1 projection with a shortcut (EfficientNetV2)",
    Op("Add", _w, _narrowed),
    aliases=("EdgeResidual",),
)


_v = Value()
_convolved = Part("in_conv", "Conv", _v, where=linear)
RSE = Pattern(
    "RSELayer",
    "a convolution, squeeze-and-excitation and a shortcut around that (PP-OCRv3)",
    Op("Add", _convolved, gated(_convolved)),
)
