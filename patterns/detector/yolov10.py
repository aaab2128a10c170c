"""SCDown, CIB and C2fCIB of YOLOv10."""

from __future__ import annotations

from graphsurgery.patterns.detector.c2f import gathered
from graphsurgery.patterns.detector.common import linear, link, pointwise, unstrided
from graphsurgery.recognition import OneOf, Op, Part, Pattern, RecognisedBlock, Value


def _strided(conv: RecognisedBlock) -> bool:
    return not unstrided(conv)


SCDOWN = Pattern(
    "SCDown",
    "1x1 convolution, with activation (YOLOv10) or without (D-FINE), then a depthwise one with a stride",
    Part("cv2", "DWConv", Part("cv1", "Conv", Value(), where=pointwise), where=(linear, _strided)),
)

_x = Value()
_deep = Part("cv1.2", "DWConv", Part("cv1.1", "Conv", Part("cv1.0", "DWConv", _x), where=pointwise))
_cib = Part("cv1.4", "DWConv", Part("cv1.3", "Conv", _deep, where=pointwise))
CIB = Pattern(
    "CIB",
    "three depthwise and two 1x1 convolutions (YOLOv10: compact inverted block)",
    OneOf(Op("Add", _x, _cib), _cib),
    alone=False,
)
C2FCIB = Pattern("C2fCIB", "C2f with compact inverted blocks (YOLOv10)", gathered(link("CIB")))
