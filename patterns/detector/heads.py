"""Detection heads, recognised by the operators downstream of the image plane."""

from __future__ import annotations

from graphsurgery.recognition import HeadPattern, Prediction

_MATRIX = ("MatMul", "Gemm", "Einsum", "FusedMatMul")
_ATTENTION = ("Softmax", "Attention", "MultiHeadAttention")
DECODER = HeadPattern(
    "RTDETRDecoder",
    "queries that sample the maps (RT-DETR and other transformers)",
    has=(("GridSample", "TopK", "GatherElements"), ("Softmax", "MultiHeadAttention"), _MATRIX),
    lacks=("NonMaxSuppression",),
    aliases=("RTDetrDecoder",),
)
SET = HeadPattern(
    "DETRDecoder",
    "a transformer over the positions of one map, whose queries attend to all of them (DETR)",
    has=(_ATTENTION, _MATRIX),
    lacks=("NonMaxSuppression", "Conv"),
    aliases=("DetrDecoder",),
    where=lambda given: given.boxes,
)


def _detects(given: Prediction) -> bool:
    """Whether a head predicts on coarser maps: at several strides, or several things at one.

    What segmentation and enhancement give is a map of the image, or one map of one thing; their side outputs have the
    strides from the image's on.
    """
    coarse = given.strides - {1}
    if {1, 2} <= given.strides:
        return False
    return len(coarse) > 1 or (bool(coarse) and len(given.widths) > 1)


END_TO_END = HeadPattern(
    "Detect",
    "end-to-end: the best anchors chosen in the graph (YOLOv10, YOLO26)",
    has=("TopK",),
    facts={"kind": "end-to-end"},
)
DFL = HeadPattern(
    "Detect",
    "anchor-free with distances by distribution (YOLOv8 to YOLO12)",
    has=("Softmax",),
    facts={"kind": "dfl"},
    where=_detects,
)
PLAIN = HeadPattern(
    "Detect",
    "boxes and classes by convolutions (YOLOv5, YOLOX and others)",
    facts={"kind": "plain"},
    where=_detects,
)
