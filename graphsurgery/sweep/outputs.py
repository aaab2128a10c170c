"""Outputs of a model on a few images, as those see them who read detections: shapes, ranges of values, kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..feature_map import Array
from .detections import Detections, Values

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))


@dataclass(frozen=True)
class Reader:
    """How detections are read from the outputs of a model, for one image."""

    words: str
    """what the outputs are"""
    read: Callable[[Sequence[Array]], Detections]


@dataclass(frozen=True)
class Output:
    """One output of a model on all images."""

    number: int
    arrays: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes, -1 where they differ between images."""
        sizes = zip(*(array.shape for array in self.arrays), strict=True)
        return tuple(each[0] if len(set(each)) == 1 else -1 for each in sizes)

    @property
    def words(self) -> str:
        """The shape as a text."""
        return f"[{', '.join('?' if size < 0 else str(size) for size in self.shape)}]"

    @property
    def is_float(self) -> bool:
        """Whether its numbers are floating-point ones."""
        return all(array.dtype.kind in "fV" for array in self.arrays)

    def part(self, *where: Any) -> Values:
        """A part of the arrays, of all images in one row."""
        return np.concatenate([np.asarray(array, np.float64)[where].ravel() for array in self.arrays])

    def of(self, outputs: Sequence[Array]) -> Values:
        """This one among the outputs for one image: of the first picture in a batch."""
        return np.asarray(outputs[self.number][0], np.float64)


@dataclass(frozen=True)
class Picture:
    """The size of the model's input in pixels."""

    height: int
    width: int

    def map_at(self, stride: int) -> tuple[int, int]:
        """Height and width of a map."""
        return -(-self.height // stride), -(-self.width // stride)

    @property
    def places(self) -> set[int]:
        """How many places the maps of a detector have together, at the usual strides."""
        return {sum(h * w for h, w in map(self.map_at, strides)) for strides in _STRIDES}

    @property
    def edges(self) -> Values:
        """What shares of the image are multiplied with: [4]."""
        return np.array([self.width, self.height, self.width, self.height], np.float64)


def is_share(values: Values) -> bool:
    """Whether all are from 0 to 1; of none nothing can be told."""
    return bool(values.size and values.min() >= -1e-6 and values.max() <= 1 + 1e-6)


def is_whole(values: Values) -> bool:
    """Whether all are whole numbers from 0 on."""
    return bool(values.size and (values == np.round(values)).all() and values.min() >= 0)


def are_corners(boxes: Sequence[Values]) -> bool:
    """Whether boxes [..., 4] have right of left and bottom below top: of centres and sizes some do not."""
    return all(bool((each[..., 2:] >= each[..., :2]).all()) for each in boxes)


def sigmoid(values: Values) -> Values:
    """Between 0 and 1."""
    found: Values = 0.5 * (1 + np.tanh(0.5 * values))
    return found
