"""HGStem, HGBlock and LightConv of PP-HGNetV2 (RT-DETR)."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, linear, link, pointwise
from graphsurgery.recognition import Each, OneOf, Op, Part, Pattern, Value

_x = Value()
LIGHTCONV = Pattern(
    "LightConv",
    "1x1 convolution without activation, then a depthwise one with it (PP-HGNet)",
    Part("conv2", "DWConv", Part("conv1", "Conv", _x, where=(pointwise, linear)), where=active),
)

_links = Each("m", link("Conv", "LightConv"), _x, least=2)
_squeezed = Part("sc", "Conv", Op("Concat", _x, _links), where=pointwise)
_excited = Part("ec", "Conv", _squeezed, where=pointwise)
HGBLOCK = Pattern(
    "HGBlock",
    "chain of convolutions, all maps concatenated, squeezed and excited (PP-HGNet, RT-DETR)",
    OneOf(_excited, Op("Add", _x, _excited)),
    where=lambda block: len(block.entries) == 1,
)

_stem = Part("stem1", "Conv", Value())
# the padding is a node that both branches read, one for each of them, or an attribute of the convolution
_branch = Part("stem2b", "Conv", Part("stem2a", "Conv", OneOf(_stem, Op("Pad", _stem, first=True))))
_pool = Op("MaxPool", OneOf(_stem, Op("Pad", _stem, first=True)))
HGSTEM = Pattern(
    "HGStem",
    "stem with a pooled and a convolved branch (PP-HGNet, RT-DETR)",
    Part("stem4", "Conv", Part("stem3", "Conv", Op("Concat", _pool, _branch)), where=pointwise),
)
