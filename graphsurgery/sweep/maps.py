"""Maps: detections in raw maps [N, channels, height, width] at several strides, as heads give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..feature_map import Array
from ..graph.index import GraphIndex
from ..graph.shapes import TensorType
from .detections import Detections, Values, best_of
from .outputs import Output, Picture, Reader, is_share, sigmoid

_BINS = 16
"""of the distribution that YOLOv8 and its successors have for each side of a box"""
_SIDES = 4 * _BINS
_STRIDES = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class _Level:
    """One stride: where its sides and its classes stand."""

    stride: int
    sides: Output
    classes: Output
    together: bool
    """whether both are one output, the sides first"""


def maps(outputs: Sequence[Output], picture: Picture, joined: Sequence[Sequence[int]]) -> Reader | str | None:
    """How they are read; a sentence where there are such maps that leave open what they mean; None where there are
    none. ``joined``: of each output, the channels of the tensors that it is joined from, where it is.
    """
    by_stride = {stride: _at(stride, outputs, picture) for stride in _STRIDES}
    by_stride = {stride: found for stride, found in by_stride.items() if found}
    strides = ", ".join(map(str, by_stride))
    if len(by_stride) < 2 or sum(map(len, by_stride.values())) != len(outputs):
        return None
    levels = [_level(stride, found, joined) for stride, found in by_stride.items()]
    known = [each for each in levels if each is not None]
    if len(known) < len(levels) or len({_width(each) for each in known}) != 1:
        return f"raw maps at the strides {strides}: anchors and how boxes are computed are not in the file"
    raw = not all(is_share(each.classes.part(slice(None), _classes(each))) for each in known)

    def read(found: Sequence[Array]) -> Detections:
        parts = [_read(each, found) for each in known]
        scores = np.concatenate([score for _, score in parts])
        return best_of(np.concatenate([box for box, _ in parts]), sigmoid(scores) if raw else scores, suppress=True)

    kind = "logits" if raw else "scores"
    return Reader(f"distributions of the sides and {kind} at the strides {strides}", read)


def _at(stride: int, outputs: Sequence[Output], picture: Picture) -> list[Output]:
    return [each for each in outputs if len(each.shape) == 4 and each.shape[2:] == picture.map_at(stride)]


def _level(stride: int, outputs: Sequence[Output], joined: Sequence[Sequence[int]]) -> _Level | None:
    """One output that is joined from sides and classes, or an output of each; a sum of the scores may stand beside."""
    if len(outputs) == 1:
        (both,) = outputs
        parts = tuple(joined[both.number]) if joined else ()
        return _Level(stride, both, both, True) if len(parts) == 2 and parts[0] == _SIDES else None
    sides = [each for each in outputs if each.shape[1] == _SIDES]
    others = [each for each in outputs if each.shape[1] != _SIDES]
    sums = [each for each in others if each.shape[1] == 1] if len(others) == 2 else []
    classes = [each for each in others if each not in sums]
    return _Level(stride, sides[0], classes[0], False) if len(sides) == len(classes) == 1 else None


def _classes(level: _Level) -> slice:
    return slice(_SIDES, None) if level.together else slice(None)


def _width(level: _Level) -> int:
    return level.classes.shape[1] - (_SIDES if level.together else 0)


def _read(level: _Level, outputs: Sequence[Array]) -> tuple[Values, Values]:
    """Corners in pixels [places, 4], and what the classes have [places, classes]."""
    sides = level.sides.of(outputs)[:_SIDES]
    _, height, width = sides.shape
    bins = sides.reshape(4, _BINS, height * width)
    weights = np.exp(bins - bins.max(axis=1, keepdims=True))
    distances = (weights * np.arange(_BINS)[None, :, None]).sum(axis=1) / weights.sum(axis=1)
    y, x = (each.ravel() + 0.5 for each in np.indices((height, width)))
    left, top, right, bottom = distances
    boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1) * level.stride
    classes = level.classes.of(outputs)[_classes(level)]
    return boxes, classes.reshape(len(classes), -1).T


def joined_channels(index: GraphIndex, lookup: Callable[[str], TensorType]) -> list[tuple[int, ...]]:
    """Of each output of a model, the channels of the tensors that it is joined from; () where it is not."""
    return [_joined(index.producing(name), lookup) for name in index.outputs]


def _joined(node: onnx.NodeProto | None, lookup: Callable[[str], TensorType]) -> tuple[int, ...]:
    if node is None or node.op_type != "Concat" or node.attribute[0].i % 4 != 1:
        return ()
    channels = [(lookup(name)[1] or (None, None))[1:2] for name in node.input]
    return tuple(c for (c,) in channels if isinstance(c, int)) if all(channels) else ()
