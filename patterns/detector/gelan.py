"""ELAN1 and RepNCSPELAN4: the aggregation blocks of YOLOv9."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import Link, active, pointwise, spatial
from graphsurgery.recognition import Expression, Half, OneOf, Op, Part, Pattern, Value

_usual = (active, spatial)


def _aggregated(link: Link) -> Part:
    """cv4 over both halves of cv1, and two links after the second half."""
    split = Part("cv1", "Conv", Value(), where=pointwise)
    right = Half(split, 1)
    second = link(right, "cv2")
    return Part("cv4", "Conv", Op("Concat", Half(split, 0), right, second, link(second, "cv3")), where=pointwise)


def _plain(previous: Expression, name: str) -> Expression:
    return Part(name, "Conv", previous, where=_usual)


def _partial(previous: Expression, name: str) -> Expression:
    inner = Part(f"{name}.0", ("C3", "RepC3"), previous)
    return OneOf(Part(f"{name}.1", "Conv", inner, where=_usual), Part(name, "RepC3", previous))


ELAN1 = Pattern("ELAN1", "both halves and two convolutions behind the second, all concatenated", _aggregated(_plain))
REPNCSPELAN4 = Pattern(
    "RepNCSPELAN4",
    "both halves and two CSP blocks behind the second, all concatenated (YOLOv9: GELAN; D-FINE, DEIM)",
    _aggregated(_partial),
    aliases=("GELAN",),
)
