"""GhostConv, GhostBottleneck and C3Ghost: half of a map made cheaply from the other half (GhostNet)."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import gated, linear, link, pointwise, unstrided
from graphsurgery.recognition import Chain, OneOf, Op, Part, Pattern, RecognisedBlock, Value

_primary = Part("cv1", "Conv", Value())
_both = Op("Concat", _primary, Part("cv2", "DWConv", _primary, where=unstrided))
GHOSTCONV = Pattern(
    "GhostConv",
    "a convolution, and a depthwise one of its result beside it",
    OneOf(
        _both, Op("Slice", _both, first=True)
    ),  # GhostNet cuts the channels that are too many off, also where none is
    aliases=("GhostModule",),
)


def _bare(conv: RecognisedBlock) -> bool:
    return linear(conv)


_x = Value()
_first = Part("conv.0", "GhostConv", _x)
_strided = Part("conv.1", "DWConv", _first, where=_bare)
_inner = OneOf(_first, _strided, gated(_first), gated(_strided))
_last = Part("conv.2", "GhostConv", _inner)
_short = Part("shortcut.1", "Conv", Part("shortcut.0", "DWConv", _x, where=_bare), where=_bare)
BOTTLENECK = Pattern("GhostBottleneck", "two GhostConvs with a shortcut", Op("Add", _last, OneOf(_x, _short)))

_in = Value()
_deep = Chain("m", link("GhostBottleneck"), Part("cv1", "Conv", _in, where=pointwise))
C3GHOST = Pattern(
    "C3Ghost",
    "C3 of GhostBottlenecks",
    Part("cv3", "Conv", Op("Concat", _deep, Part("cv2", "Conv", _in, where=pointwise)), where=pointwise),
)
