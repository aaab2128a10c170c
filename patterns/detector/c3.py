"""C3 and C3k: cross-stage-partial blocks with three convolutions (YOLOv5, YOLOX, inside of YOLO11)."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import link, pointwise
from graphsurgery.recognition import Chain, Op, Part, Pattern, Value

_x = Value()
_deep = Chain("m", link("Bottleneck", "RepBottleneck"), Part("cv1", "Conv", _x, where=pointwise))
_graph = Part("cv3", "Conv", Op("Concat", _deep, Part("cv2", "Conv", _x, where=pointwise)), where=pointwise)

C3 = Pattern(
    "C3",
    "cross-stage-partial block with three convolutions (YOLOv5; YOLOX: CSPLayer)",
    _graph,
    aliases=("CSPLayer", "RepCSP"),
)
C3K = Pattern("C3k", "C3 as a part of C3k2 and A2C2f (YOLO11, YOLO12)", _graph, alone=False)
