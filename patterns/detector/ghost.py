"""GhostConv, GhostBottleneck and C3Ghost: half of a map computed cheaply from the other half (GhostNet)."""

from __future__ import annotations

from graphsurgery.patterns.detector.c3 import cross_stage
from graphsurgery.patterns.detector.common import linear, link, unstrided
from graphsurgery.patterns.detector.gates import gated
from graphsurgery.recognition import Expression, OneOf, Op, Part, Pattern, Value


def _ghost(x: Expression) -> OneOf:
    """A convolution, and a depthwise one of its result beside it."""
    primary = Part("cv1", "Conv", x)
    both = Op("Concat", primary, Part("cv2", "DWConv", primary, where=unstrided))
    return OneOf(both, Op("Slice", both, first=True))  # GhostNet cuts surplus channels off, also where there are none


GHOSTCONV = Pattern(
    "GhostConv",
    "a convolution, and a depthwise one of its result beside it",
    _ghost(Value()),
    aliases=("GhostModule",),
)

_in = Value()
_smaller = Part("short_conv.0", "Conv", Op("AveragePool", _in), where=linear)
_row = Part("short_conv.2", "DWConv", _smaller, where=linear)
_gate = Op(("Sigmoid", "HardSigmoid"), Part("short_conv.4", "DWConv", _row, where=linear))
GHOSTV2 = Pattern(
    "GhostModuleV2",
    "GhostConv times a gate from long rows and columns of its smaller input (GhostNetV2)",
    Op("Mul", _ghost(_in), Op("Resize", _gate, first=True)),
)

_x = Value()
_first = Part("conv.0", ("GhostConv", "GhostModuleV2"), _x)
_strided = Part("conv.1", "DWConv", _first, where=linear)
_inner = OneOf(_first, _strided, gated(_first), gated(_strided))
_last = Part("conv.2", "GhostConv", _inner)
_short = Part("shortcut.1", "Conv", Part("shortcut.0", "DWConv", _x, where=linear), where=linear)
BOTTLENECK = Pattern("GhostBottleneck", "two GhostConvs with a shortcut", Op("Add", _last, OneOf(_x, _short)))

C3GHOST = Pattern("C3Ghost", "C3 of GhostBottlenecks", cross_stage(link("GhostBottleneck")))
