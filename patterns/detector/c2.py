"""C2 and BottleneckCSP: cross-stage-partial blocks that split, or that normalise what they have joined."""

from __future__ import annotations

from graphsurgery.patterns.detector.activations import activated
from graphsurgery.patterns.detector.common import linear, link, pointwise
from graphsurgery.recognition import Chain, Half, Op, Part, Pattern, Value

_split = Part("cv1", "Conv", Value(), where=pointwise)
_deep = Chain("m", link("Bottleneck"), Half(_split, 0))
C2 = Pattern(
    "C2",
    "half of the channels through Bottlenecks (YOLOv8 with P6)",
    Part("cv2", "Conv", Op("Concat", _deep, Half(_split, 1)), where=pointwise),
)


_bare = (pointwise, linear)
_x = Value()
_long = Part("cv3", "Conv", Chain("m", link("Bottleneck"), Part("cv1", "Conv", _x, where=pointwise)), where=_bare)
_joined = Op("Concat", _long, Part("cv2", "Conv", _x, where=_bare))
CSP = Pattern(
    "BottleneckCSP",
    "cross-stage-partial block that normalises and activates behind its concatenation (YOLOv5 before 4.0)",
    Part("cv4", "Conv", activated(Op("BatchNormalization", _joined)), where=pointwise),
)
