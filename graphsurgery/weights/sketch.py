"""Sketches: a few numbers that tell how far two tensors are apart, without either being kept.

A sketch adds every value, with a sign, to one of a few sums; sign and sum are drawn from the value's place. The sketch
of a difference is the difference of the sketches, and its length is that of the difference itself, to about a quarter
(count sketch, Charikar, Chen and Farach-Colton 2002, doi:10.1007/3-540-45465-9_59).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..feature_map import Array

SUMS = 32
_AT_ONCE = 1 << 20
_ODD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
"""of splitmix64, by which the signs are the same on every machine and in every version of numpy"""


@dataclass(frozen=True)
class Sketch:
    """Of one tensor."""

    sums: tuple[float, ...]
    size: float
    """the length of the tensor, or of what it is the sum of"""

    @classmethod
    def of(cls, values: Array, size: float | None = None) -> Sketch:
        """The sketch of an array of any shape, in the order of its elements."""
        flat, sums, squares = np.asarray(values).reshape(-1), np.zeros(SUMS), 0.0
        for start in range(0, flat.size, _AT_ONCE):
            part = flat[start : start + _AT_ONCE].astype(np.float64)
            drawn = _drawn(start, part.size)
            signed = np.where(drawn & np.uint64(1), part, -part)
            places = ((drawn >> np.uint64(1)) % np.uint64(SUMS)).astype(np.intp)
            sums += np.bincount(places, signed, SUMS)
            squares += float(part @ part)
        rounded = tuple(float(each) for each in sums.astype(np.float32))
        return cls(rounded, float(np.float32(np.sqrt(squares) if size is None else size)))

    @property
    def is_finite(self) -> bool:
        """Whether it is of numbers alone."""
        return bool(np.isfinite(self.sums).all() and np.isfinite(self.size))

    @classmethod
    def zero(cls) -> Sketch:
        """That of a tensor of zeros."""
        return cls((0.0,) * SUMS, 0.0)

    def distance(self, other: Sketch, least: float = 0.0) -> float:
        """How far the other tensor is away, as a share of the size of this one, or of ``least`` where that is more;
        infinity where it is not finite.
        """
        apart, size = float(np.linalg.norm(np.subtract(self.sums, other.sums))), max(self.size, least)
        if not np.isfinite(apart):
            return float("inf")
        return apart / size if size else 0.0 if apart == 0.0 else float("inf")

    def to_json(self) -> list[Any]:
        """Plain data, from which :meth:`from_json` makes it again."""
        return [self.size, base64.b64encode(np.array(self.sums, "<f4").tobytes()).decode()]

    @classmethod
    def from_json(cls, plain: Any) -> Sketch:
        """From such data. ValueError or TypeError if it is none."""
        size, text = plain
        try:
            sums = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
        except binascii.Error as error:
            raise ValueError("no sums") from error
        if len(sums) != SUMS or not isinstance(size, float | int):
            raise ValueError("no sketch")
        found = cls(tuple(map(float, sums)), float(size))
        if not found.is_finite or found.size < 0:
            raise ValueError("no sketch")
        return found


def _drawn(start: int, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """64 bits for each of some places in a row."""
    with np.errstate(over="ignore"):
        mixed = np.arange(start + 1, start + count + 1, dtype=np.uint64) * _ODD[0]
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _ODD[1]
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _ODD[2]
        drawn: np.ndarray[Any, np.dtype[np.uint64]] = mixed ^ (mixed >> np.uint64(31))
        return drawn
