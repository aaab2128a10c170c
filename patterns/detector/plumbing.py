"""Upsample, Concat and the Focus stem."""

from __future__ import annotations

from graphsurgery.recognition import OneOf, Op, Part, Pattern, Rest, Value

UPSAMPLE = Pattern("Upsample", "a map made larger", Op("Resize", Value(), first=True))
CONCAT = Pattern(
    "Concat", "maps side by side in one tensor", Op("Concat", Rest()), where=lambda block: len(block.entries) > 1
)

_x = Value()


def _corner() -> OneOf:
    """Every second row and column, in one step or two."""
    return OneOf(Op("Slice", _x, first=True), Op("Slice", Op("Slice", _x, first=True), first=True))


_depth = Op("SpaceToDepth", _x)  # onnxruntime's form of it, with the maps in another order
FOCUS = Pattern(
    "Focus",
    "every second pixel of the image in four maps, and a convolution (YOLOv5 before 6.0, YOLOX)",
    Part("conv", "Conv", OneOf(Op("Concat", *(_corner() for _ in range(4))), _depth, Op("Gather", _depth, first=True))),
)
