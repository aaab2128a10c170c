"""Detections: boxes, scores and classes that a detector finds, the best of many, and how they overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SCORE = 0.25
"""what a detection scores at least, as detectors' own commands have it"""
OVERLAP = 0.7
"""above this, the lower of two boxes of one class is dropped, where the model leaves that to others"""
MOST = 300
_CANDIDATES = 1000
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Detections:
    """What a detector finds on one image, the highest score first."""

    boxes: Values
    """[N, 4]: left, top, right, bottom, in pixels of the model's input"""
    scores: Values
    """[N]"""
    classes: npt.NDArray[np.int64]
    """[N]"""


def corners(boxes: Values) -> Values:
    """Left, top, right and bottom of boxes [N, 4] that are centres and sizes."""
    centres, halves = boxes[:, :2], boxes[:, 2:4] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def best_of(boxes: Values, scores: Values, *, suppress: bool) -> Detections:
    """Those above :data:`SCORE`. ``suppress``: drop the lower of two of one class that overlap."""
    classes, best = scores.argmax(axis=1), scores.max(axis=1)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] >= SCORE][:_CANDIDATES]
    boxes, best, classes = boxes[order], best[order], classes[order]
    if suppress:
        kept = _suppressed(boxes, classes)
        boxes, best, classes = boxes[kept], best[kept], classes[kept]
    return Detections(boxes[:MOST], best[:MOST], classes[:MOST])


def from_list(boxes: Values, scores: Values, classes: Values) -> Detections:
    """Those above :data:`SCORE` of a list that holds each object once."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= SCORE][:MOST]
    return Detections(boxes[order], scores[order], classes[order].astype(np.int64))


def _suppressed(boxes: Values, classes: npt.NDArray[np.int64]) -> list[int]:
    """The first of boxes that overlap, :data:`MOST` at most."""
    kept: list[int] = []
    left = np.arange(len(boxes))
    while len(left) and len(kept) < MOST:
        first, others = left[0], left[1:]
        kept.append(int(first))
        apart = overlaps(boxes[[first]], boxes[others])[0] <= OVERLAP
        left = others[apart | (classes[others] != classes[first])]
    return kept


def overlaps(first: Values, second: Values) -> Values:
    """Intersection over union of boxes [N, 4] with boxes [M, 4]: [N, M]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - common
    shares: Values = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares
