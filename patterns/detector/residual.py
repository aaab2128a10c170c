"""Residual blocks of classification backbones: ResNet's two, the inverted one of MobileNet and EfficientNet."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, gated, linear, pointwise
from graphsurgery.recognition.found import Found
from graphsurgery.recognition.pattern import Expression, OneOf, Op, Part, Pattern, Value


def _resnet(main: Expression, x: Expression) -> Op:
    """ReLU of a branch added to x, or to x by a convolution (behind a pooling in ResNet-D)."""
    pooled = OneOf(x, Op("AveragePool", x), Op("AveragePool", Op("Pad", x, first=True)))
    short = Part("downsample", "Conv", pooled, where=linear)
    return Op("Relu", OneOf(Op("Add", main, x), Op("Add", main, short)))


_x = Value()
_two = Part("conv2", "Conv", Part("conv1", "Conv", _x, where=active), where=linear)
BASIC = Pattern(
    "BasicBlock", "two convolutions and a shortcut, activated after the sum (ResNet-18, -34)", _resnet(_two, _x)
)

_y = Value()
_first = Part("conv1", "Conv", _y, where=lambda conv: pointwise(conv) and active(conv))
_three = Part("conv3", "Conv", Part("conv2", "Conv", _first, where=active), where=lambda c: pointwise(c) and linear(c))
BOTTLENECK = Pattern(
    "ResNetBottleneck",
    "1x1, 3x3 and 1x1 convolution and a shortcut, activated after the sum (ResNet-50)",
    _resnet(_three, _y),
)


def _projection(conv: Found) -> bool:
    return pointwise(conv) and linear(conv)


_z = Value()
_wide = OneOf(_z, Part("expand", "Conv", _z, where=lambda conv: pointwise(conv) and active(conv)))
_depth = Part("depthwise", "DWConv", _wide, where=active)
_projected = OneOf(
    Part("project", "Conv", _depth, where=_projection), Part("project", "Conv", gated(_depth), where=_projection)
)
INVERTED = Pattern(
    "InvertedResidual",
    "expansion, depthwise convolution, squeeze-and-excitation or none, projection (MobileNet, EfficientNet)",
    OneOf(_projected, Op("Add", _z, _projected)),
    aliases=("MBConv",),
)
