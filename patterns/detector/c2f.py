"""C2f, C3k2 and A2C2f: blocks that keep every intermediate map and concatenate them all (YOLOv8, YOLO11, YOLO12)."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import Link, part, pointwise
from graphsurgery.recognition import Each, Expression, Half, OneOf, Op, Part, Pattern, RecognisedBlock, Value


def gathered(item: Link) -> Part:
    """cv2 over both halves of cv1 and every map of a chain after the second half."""
    split = Part("cv1", "Conv", Value(), where=pointwise)
    left, right = Half(split, 0), Half(split, 1)
    return Part("cv2", "Conv", Op("Concat", left, right, Each("m", item, right)), where=pointwise)


def _hidden_is_narrow(bottleneck: RecognisedBlock) -> bool:
    """Whether a Bottleneck has half of its channels between its two convolutions, as in C3k2; C2f's has all of them."""
    inner = part(bottleneck, "cv1").facts
    return inner.get("channels_out") != inner.get("channels_in")


def _narrow(previous: Expression, name: str) -> Expression:
    bottleneck = Part(name, "Bottleneck", previous, where=_hidden_is_narrow)
    attentive = Part(f"{name}.1", "PSABlock", Part(f"{name}.0", "Bottleneck", previous))
    return OneOf(bottleneck, Part(name, "C3k", previous), attentive)


def _wide(previous: Expression, name: str) -> Expression:
    return Part(name, "Bottleneck", previous, where=lambda block: not _hidden_is_narrow(block))


def _attentive(previous: Expression, name: str) -> Expression:
    pair = Part(f"{name}.1", "ABlock", Part(f"{name}.0", "ABlock", previous))
    return OneOf(pair, Part(name, "C3k", previous))


C2F = Pattern("C2f", "CSP bottleneck with two convolutions and all maps kept (YOLOv8)", gathered(_wide))
C3K2 = Pattern("C3k2", "C2f with C3k blocks or narrow Bottlenecks (YOLO11, YOLO26)", gathered(_narrow))

_first = Part("cv1", "Conv", Value(), where=pointwise)
_all = Part("cv2", "Conv", Op("Concat", _first, Each("m", _attentive, _first)), where=pointwise)
A2C2F = Pattern(
    "A2C2f",
    "C2f with area attention or C3k blocks, residual or not (YOLO12)",
    OneOf(_all, Op("Add", _first.source, Op("Mul", _all))),
)
