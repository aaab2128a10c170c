"""SPPF and SPP: a map beside its maxima over growing windows."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import pointwise
from graphsurgery.recognition import Each, Expression, OneOf, Op, Part, Pattern, Value, View


def keeps_size(view: View, node_index: int) -> bool:
    """Whether a pooling has no stride."""
    return view.integers(node_index, "strides") in ((), (1, 1))


def _pool(previous: Expression, name: str) -> Expression:
    return Op("MaxPool", previous, where=keeps_size)


_x = Value()
_y = Part("cv1", "Conv", _x, where=pointwise)
_sppf = Part("cv2", "Conv", Op("Concat", _y, Each("m", _pool, _y, least=2)), where=pointwise)
SPPF = Pattern(
    "SPPF",
    "spatial pyramid pooling by repeated pooling (YOLOv5 and later)",
    OneOf(_sppf, Op("Add", _x, _sppf)),
    aliases=("SPPELAN",),
)

_map = Value()
_z = OneOf(Part("cv1", "Conv", _map, where=pointwise), _map)  # PP-YOLOE has no convolution in front
_pools = [Op("MaxPool", _z, where=keeps_size) for _ in range(3)]
SPP = Pattern(
    "SPP",
    "spatial pyramid pooling with windows side by side (YOLOv3, YOLOX, RTMDet, PP-YOLOE)",
    Part("cv2", "Conv", OneOf(Op("Concat", _z, *_pools), Op("Concat", *_pools, _z)), where=pointwise),
    aliases=("SPPBottleneck",),
)
