"""Detection heads, recognised by the operators downstream of the image plane."""

from __future__ import annotations

from graphsurgery.recognition import HeadPattern

_MATRIX = ("MatMul", "Gemm", "Einsum", "FusedMatMul")
DECODER = HeadPattern(
    "RTDETRDecoder",
    "queries that sample the maps (RT-DETR and other transformers)",
    has=(("GridSample", "TopK", "GatherElements"), ("Softmax", "MultiHeadAttention"), _MATRIX),
    lacks=("NonMaxSuppression",),
    aliases=("RTDetrDecoder",),
)
END_TO_END = HeadPattern(
    "Detect",
    "end-to-end: the best anchors chosen in the graph (YOLOv10, YOLO26)",
    has=("TopK",),
    facts={"kind": "end-to-end"},
)
DFL = HeadPattern(
    "Detect", "anchor-free with distances by distribution (YOLOv8 to YOLO12)", has=("Softmax",), facts={"kind": "dfl"}
)
PLAIN = HeadPattern("Detect", "boxes and classes by convolutions (YOLOv5, YOLOX and others)", facts={"kind": "plain"})
