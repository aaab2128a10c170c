"""SCDown, CIB and C2fCIB of YOLOv10."""

from __future__ import annotations

from graphsurgery.patterns.detector.c2f import gathered
from graphsurgery.patterns.detector.common import linear, link, pointwise, unstrided
from graphsurgery.recognition import OneOf, Op, Part, Pattern, RecognisedBlock, Value, View

_AROUND = frozenset({"BatchNormalization", "Relu", "Clip", "HardSwish", "LeakyRelu", "Sigmoid", "Mul", "Swish"})
"""operators that follow a convolution in its module"""


def _strided(conv: RecognisedBlock) -> bool:
    return not unstrided(conv)


def _not_depthwise(view: View, tensor: str) -> bool:
    """Whether a tensor leaves no depthwise convolution: with that in front, the 1x1 is the second half of a separable
    one (MobileNetV1, the stem of VoVNet), and the strided one the first half of the next.
    """
    node_index = view.producer(tensor)
    while node_index is not None and view.op(node_index) in _AROUND and view.inputs(node_index):
        node_index = view.producer(view.inputs(node_index)[0])
    if node_index is None or view.op(node_index) != "Conv":
        return True
    weight = view.weight_shape(node_index)
    return weight is None or weight[1] != 1 or view.integer(node_index, "group", 1) == 1


SCDOWN = Pattern(
    "SCDown",
    "1x1 convolution, with activation (YOLOv10) or without (D-FINE), then a depthwise one with a stride",
    Part("cv2", "DWConv", Part("cv1", "Conv", Value(_not_depthwise), where=pointwise), where=(linear, _strided)),
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
