"""GhostConv, GhostBottleneck and C3Ghost: half of a map computed cheaply from the other half (GhostNet)."""

from __future__ import annotations

from graphsurgery.patterns.detector.c3 import cross_stage
from graphsurgery.patterns.detector.common import gated, linear, link, unstrided
from graphsurgery.recognition import OneOf, Op, Part, Pattern, Value

_primary = Part("cv1", "Conv", Value())
_both = Op("Concat", _primary, Part("cv2", "DWConv", _primary, where=unstrided))
GHOSTCONV = Pattern(
    "GhostConv",
    "a convolution, and a depthwise one of its result beside it",
    OneOf(_both, Op("Slice", _both, first=True)),  # GhostNet cuts surplus channels off, also where there are none
    aliases=("GhostModule",),
)


_x = Value()
_first = Part("conv.0", "GhostConv", _x)
_strided = Part("conv.1", "DWConv", _first, where=linear)
_inner = OneOf(_first, _strided, gated(_first), gated(_strided))
_last = Part("conv.2", "GhostConv", _inner)
_short = Part("shortcut.1", "Conv", Part("shortcut.0", "DWConv", _x, where=linear), where=linear)
BOTTLENECK = Pattern("GhostBottleneck", "two GhostConvs with a shortcut", Op("Add", _last, OneOf(_x, _short)))

C3GHOST = Pattern("C3Ghost", "C3 of GhostBottlenecks", cross_stage(link("GhostBottleneck")))
