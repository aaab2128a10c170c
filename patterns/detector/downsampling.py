"""ADown and AConv of YOLOv9, DownC of YOLOv7: what halves a map with a pooling in it."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, pointwise, spatial
from graphsurgery.recognition import Expression, Half, OneOf, Op, Part, Pattern, RecognisedBlock, Value, View


def _halves(view: View, node_index: int) -> bool:
    return view.integers(node_index, "strides") == (2, 2)


def _smooths(view: View, node_index: int) -> bool:
    """A mean over 2x2 in steps of one."""
    whole = view.integers(node_index, "kernel_shape") == (2, 2)
    return whole and view.integers(node_index, "strides") in ((), (1, 1))


def _halving(conv: RecognisedBlock) -> bool:
    return conv.facts.get("stride") == (2, 2)


_strided = (active, spatial, _halving)


def _smoothed(x: Expression) -> Op:
    return Op("AveragePool", OneOf(x, Op("Pad", x, first=True)), where=_smooths)


ACONV = Pattern(
    "AConv", "mean over 2x2 and a strided convolution (YOLOv9)", Part("cv1", "Conv", _smoothed(Value()), where=_strided)
)

_x = _smoothed(Value())
_pooled = Op("MaxPool", OneOf(Half(_x, 1), Op("Pad", Half(_x, 1), first=True)), where=_halves)
ADOWN = Pattern(
    "ADown",
    "mean over 2x2, then one half of the channels convolved and the other pooled (YOLOv9)",
    Op("Concat", Part("cv1", "Conv", Half(_x, 0), where=_strided), Part("cv2", "Conv", _pooled, where=pointwise)),
)

_y = Value()
_convolved = Part("cv2", "Conv", Part("cv1", "Conv", _y, where=pointwise), where=_strided)
_maximum = Part("cv3", "Conv", Op("MaxPool", _y, where=_halves), where=pointwise)
DOWNC = Pattern("DownC", "a strided branch and a pooled one, concatenated (YOLOv7)", Op("Concat", _convolved, _maximum))
