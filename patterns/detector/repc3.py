"""RepC3 and RepConv (RT-DETR's neck)."""

from __future__ import annotations

from graphsurgery.patterns.detector.activations import activated
from graphsurgery.patterns.detector.common import active, linear, link, narrow, part, pointwise, spatial, unstrided
from graphsurgery.patterns.detector.conv import CONV, is_plain
from graphsurgery.patterns.detector.gates import gated
from graphsurgery.recognition import Chain, OneOf, Op, Part, Pattern, RecognisedBlock, Value

_in = Value()
_convolution = ("Conv", "DWConv")
_large = Part("conv1", _convolution, _in, where=(linear, spatial))
_point = Part("conv2", _convolution, _in, where=(linear, narrow))
_sum = Op("Add", _large, _point)
_norm = Op("BatchNormalization", _in)
_shifted = OneOf(_norm, Op("Add", _norm))  # MobileOne begins its sum with 0
_with_norm = Op("Add", _sum, _norm), Op("Add", _large, Op("Add", _point, _norm)), Op("Add", _point, _shifted)
_branches = OneOf(_sum, *_with_norm)
_ABOUT = "3x3 and 1x1 convolution side by side, not fused (RepVGG, MobileOne)"
_NAMES = ("RepVGGBlock", "MobileOneBlock")
REPCONV = Pattern("RepConv", _ABOUT, activated(OneOf(_branches, gated(_branches))), aliases=_NAMES)
LINEAR = Pattern("RepConv", _ABOUT, _branches, aliases=_NAMES, alone=False)


_z = Value()
REPBOTTLENECK = Pattern(
    "RepBottleneck",
    "RepConv, not fused, and a convolution with a shortcut (YOLOv9)",
    Op("Add", _z, Part("cv2", "Conv", Part("cv1", "RepConv", _z), where=active)),
    where=lambda block: not _is_fused(block),
)


def _is_fused(block: RecognisedBlock) -> bool:
    """Whether the RepConv is one convolution: then the block is a Bottleneck."""
    return not part(block, "cv1").parts


def _fused(conv: RecognisedBlock) -> bool:
    return active(conv) and spatial(conv) and unstrided(conv) and is_plain(conv)


FUSED = Pattern(
    "RepConv", "the same as one 3x3 convolution, in a RepC3", CONV.graph, alone=False, facts=CONV.facts, where=_fused
)


def _changes_width(conv: RecognisedBlock) -> bool:
    """The last convolution is there only where the width changes; otherwise it is a layer of its own."""
    return conv.facts.get("channels_in") != conv.facts.get("channels_out")


_entry = (pointwise, active)
_x = Value()
_added = Op(
    "Add", Chain("m", link("RepConv"), Part("cv1", "Conv", _x, where=_entry)), Part("cv2", "Conv", _x, where=_entry)
)
REPC3 = Pattern(
    "RepC3",
    "two 1x1 branches, one through RepConvs, added (RT-DETR; transformers: CSPRepLayer)",
    OneOf(_added, Part("cv3", "Conv", _added, where=(*_entry, _changes_width))),
    aliases=("CSPRepLayer",),
)
