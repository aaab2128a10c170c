"""ELAN and SPPCSPC of YOLOv7."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, pointwise, spatial, unstrided
from graphsurgery.patterns.detector.spp import keeps_size
from graphsurgery.recognition import Expression, OneOf, Op, Part, Pattern, Value

_dense = (active, spatial, unstrided)
_entry = (active, pointwise)


def _aggregated(links: int, step: int) -> Part:
    """Two 1x1 branches, ``links`` 3x3 convolutions after the second, every ``step``-th concatenated, last first."""
    x = Value()
    first, second = Part("cv1", "Conv", x, where=_entry), Part("cv2", "Conv", x, where=_entry)
    chain: list[Expression] = [second]
    for number in range(links):
        chain.append(Part(f"cv{number + 3}", "Conv", chain[-1], where=_dense))
    return Part(f"cv{links + 3}", "Conv", Op("Concat", *chain[::-step], first), where=_entry)


ELAN = Pattern(
    "ELAN",
    "two 1x1 branches and a chain of 3x3 convolutions behind one, concatenated (YOLOv7)",
    # YOLOv7, YOLOv7x, YOLOv7-tiny, YOLOv7's neck
    OneOf(_aggregated(4, 2), _aggregated(6, 2), _aggregated(2, 1), _aggregated(4, 1)),
)

_x = Value()
_side = Part("cv2", "Conv", _x, where=_entry)
_before = Part("cv3", "Conv", Part("cv1", "Conv", _x, where=_entry), where=_dense)
_map = Part("cv4", "Conv", _before, where=_entry)
_pooled = Op("Concat", _map, *(Op("MaxPool", _map, where=keeps_size) for _ in range(3)))
_long = Part("cv6", "Conv", Part("cv5", "Conv", _pooled, where=_entry), where=_dense)
_narrow = Part("cv1", "Conv", _x, where=_entry)
_pools = (Op("MaxPool", _narrow, where=keeps_size) for _ in range(3))
_short = Part("cv3", "Conv", Op("Concat", *_pools, _narrow), where=_entry)
SPPCSPC = Pattern(
    "SPPCSPC",
    "spatial pyramid pooling in one branch of a cross-stage-partial block (YOLOv7)",
    OneOf(
        Part("cv7", "Conv", Op("Concat", _long, _side), where=_entry),
        Part("cv4", "Conv", Op("Concat", _short, _side), where=_entry),  # YOLOv7-tiny
    ),
)
