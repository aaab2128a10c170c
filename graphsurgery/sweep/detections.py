"""Detections: boxes, scores and classes in the outputs of a detector, where what they are can be told from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..feature_map import Array

SCORE = 0.25
"""what a detection scores at least, as detectors' own commands have it"""
OVERLAP = 0.7
"""above this, the lower of two boxes of one class is dropped, where the model leaves that to others"""
MOST = 300
_CANDIDATES = 1000
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_FLAT = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Detections:
    """What a detector finds on one image, the highest score first."""

    boxes: _FLAT
    """[N, 4]: left, top, right, bottom, in pixels of the model's input"""
    scores: _FLAT
    """[N]"""
    classes: npt.NDArray[np.int64]
    """[N]"""


@dataclass(frozen=True)
class Reader:
    """How detections are read from the outputs of a model, for one image."""

    words: str
    """what the output is"""
    read: Callable[[Sequence[Array]], Detections]


def reader(outputs: Sequence[Array], height: int, width: int) -> Reader | None:
    """How a model's outputs are read; None where they cannot be told to be boxes and scores.

    Parameters
    ----------
    outputs:
        What the model gives for one batch.
    height, width:
        Of the model's input, in pixels.
    """
    if len(outputs) != 1 or outputs[0].ndim != 3 or outputs[0].dtype.kind != "f" or not np.isfinite(outputs[0]).all():
        return None
    values = np.asarray(outputs[0], np.float64)
    _, rows, columns = values.shape
    cells = {sum(-(-height // s) * -(-width // s) for s in strides) for strides in _STRIDES}
    if columns in cells and rows > 4 and _is_share(values[:, 4:]):
        return Reader("centres, sizes and scores [N, 4 + classes, places]", _of_places)
    if rows in {3 * count for count in cells} and columns > 5 and _is_share(values[..., 4:]):
        return Reader("centres, sizes, objectness and scores [N, places, 5 + classes]", _of_anchors)
    if columns == 6 and rows <= MOST and _is_share(values[..., 4]) and _is_whole(values[..., 5]):
        return Reader("corners, score and class [N, detections, 6]", _of_rows)
    if columns > 4 and rows <= MOST and _is_share(values):
        size = np.array([width, height, width, height], np.float64)
        return Reader(
            "centres, sizes (as shares of the image) and scores [N, queries, 4 + classes]",
            lambda found: _best(_corners(_first(found)[:, :4] * size), _first(found)[:, 4:], suppress=False),
        )
    return None


def _is_share(values: _FLAT) -> bool:
    return bool(values.size and values.min() >= -1e-6 and values.max() <= 1 + 1e-6)


def _is_whole(values: _FLAT) -> bool:
    return bool((values == np.round(values)).all() and values.min() >= 0)


def _first(outputs: Sequence[Array]) -> _FLAT:
    return np.asarray(outputs[0][0], np.float64)


def _of_places(outputs: Sequence[Array]) -> Detections:
    values = _first(outputs).T
    return _best(_corners(values[:, :4]), values[:, 4:], suppress=True)


def _of_anchors(outputs: Sequence[Array]) -> Detections:
    values = _first(outputs)
    return _best(_corners(values[:, :4]), values[:, 5:] * values[:, 4:5], suppress=True)


def _of_rows(outputs: Sequence[Array]) -> Detections:
    values = _first(outputs)
    kept = values[values[:, 4] >= SCORE]
    kept = kept[np.argsort(-kept[:, 4], kind="stable")]
    return Detections(kept[:, :4], kept[:, 4], kept[:, 5].astype(np.int64))


def _corners(boxes: _FLAT) -> _FLAT:
    centres, halves = boxes[:, :2], boxes[:, 2:4] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _best(boxes: _FLAT, scores: _FLAT, *, suppress: bool) -> Detections:
    """Those above :data:`SCORE`. ``suppress``: drop the lower of two of one class that overlap."""
    classes, best = scores.argmax(axis=1), scores.max(axis=1)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] >= SCORE][:_CANDIDATES]
    boxes, best, classes = boxes[order], best[order], classes[order]
    if suppress:
        kept = _suppressed(boxes, classes)
        boxes, best, classes = boxes[kept], best[kept], classes[kept]
    return Detections(boxes[:MOST], best[:MOST], classes[:MOST])


def _suppressed(boxes: _FLAT, classes: npt.NDArray[np.int64]) -> list[int]:
    kept: list[int] = []
    overlap = overlaps(boxes, boxes)
    for index in range(len(boxes)):
        same = [other for other in kept if classes[other] == classes[index]]
        if not same or overlap[index, same].max() <= OVERLAP:
            kept.append(index)
    return kept


def overlaps(first: _FLAT, second: _FLAT) -> _FLAT:
    """Intersection over union of boxes [N, 4] with boxes [M, 4]: [N, M]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - common
    shares: _FLAT = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares
