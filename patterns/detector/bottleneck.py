"""Bottleneck: two convolutions, with or without a shortcut around them."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, unstrided
from graphsurgery.patterns.detector.conv import is_plain
from graphsurgery.recognition import Op, Part, Pattern, Value

_usual = (active, unstrided, is_plain)
_x = Value()
_twice = Part("cv2", "Conv", Part("cv1", "Conv", _x, where=_usual), where=_usual)

SHORTCUT = Pattern("Bottleneck", "two convolutions with a shortcut: x + cv2(cv1(x))", Op("Add", _x, _twice))
STRAIGHT = Pattern("Bottleneck", "two convolutions in a C3 or C2f without shortcut: cv2(cv1(x))", _twice, alone=False)
