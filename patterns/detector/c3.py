"""C3 and C3k: cross-stage-partial blocks with three convolutions (YOLOv5, YOLOX, inside of YOLO11)."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import Link, link, pointwise
from graphsurgery.recognition import Chain, Op, Part, Pattern, Value


def cross_stage(item: Link) -> Part:
    """cv3 over two branches, one of them through a chain."""
    x = Value()
    deep = Chain("m", item, Part("cv1", "Conv", x, where=pointwise))
    return Part("cv3", "Conv", Op("Concat", deep, Part("cv2", "Conv", x, where=pointwise)), where=pointwise)


_graph = cross_stage(link("Bottleneck", "RepBottleneck"))
C3 = Pattern(
    "C3",
    "cross-stage-partial block with three convolutions (YOLOv5; YOLOX: CSPLayer)",
    _graph,
    aliases=("CSPLayer", "RepCSP"),
)
C3K = Pattern("C3k", "C3 as a part of C3k2 and A2C2f (YOLO11, YOLO12)", _graph, alone=False)
