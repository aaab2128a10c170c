"""The distance between an output and its float64 reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..feature_map import Array, numpy_dtype
from .tolerance import TOLERANCES, Tolerance

Expected = npt.NDArray[np.float64]

_RELATIVE_FLOOR = 1e-3
_PIECE = 16_384
"""How many elements are compared at a time: a handful of float64 arrays of them fits into a processor's cache."""


@dataclass(frozen=True)
class Figures:
    """How far an output is from its reference. ``inf`` where one side is NaN or infinite and the other is not."""

    max_abs: float
    mean_abs: float
    p99_abs: float
    """99th percentile of the absolute error."""
    max_rel: float
    """Largest |error| / |expected|; values below a thousandth of the largest |expected| are divided by that thousandth,
    so that the noise around zero does not decide."""
    max_ulps: float
    """Largest distance in units in the last place: how many numbers of the site's element type lie between the output
    and the reference rounded to that type. A whole number, or ``inf``. Large near zero by nature, so it does not
    decide."""
    cosine: float
    """Cosine of the angle between the two tensors; 1 if both are zero, 0 if one is; NaN if an output is not finite."""
    ratio: float
    """Largest error / permitted error: 1 and below is within the tolerance."""


@dataclass(frozen=True)
class Metrics(Figures):
    """One comparison."""

    worst_index: tuple[int, ...]
    """Where ``ratio`` was found."""
    elements: int
    nonfinite: int
    """Elements that are NaN or infinite on one side only."""
    passed: bool
    reason: str = ""
    """Why it did not pass; "" if it did."""


def compare(
    actual: Array, expected: Array, dtype: str, *, signal: Array | None = None, tolerance: Tolerance | None = None
) -> Metrics:
    """Compare an output with its reference.

    ``actual``: any shape, of element type ``dtype`` ("float32", "float16", "bfloat16" or "float64"). ``expected``:
    float64, the same shape. ``signal``: the block's input, which the tolerance takes into account if it has this shape.
    ``tolerance``: that of the element type if it is None.

    Fails where the shapes or the element type differ, where nothing can be compared, and where an output is NaN or
    infinite although the reference is finite. NaN against NaN, and an infinity against the same one, agree.
    """
    if actual.shape != expected.shape:
        return _incomparable(f"the output has shape {list(actual.shape)} instead of {list(expected.shape)}")
    if actual.dtype != numpy_dtype(dtype):
        return _incomparable(f"the output is {actual.dtype} instead of {dtype}")
    if expected.size == 0:
        return _incomparable("the output is empty")
    x = signal if signal is not None and signal.shape == expected.shape else None
    limits = tolerance or TOLERANCES[dtype]
    reference: Expected = np.asarray(expected, np.float64)
    finite = np.isfinite(reference) & np.isfinite(actual)
    if finite.all():
        return _finite(actual, reference, x, limits, dtype)
    wide: Expected = actual.astype(np.float64)
    agree = finite | (np.isnan(wide) & np.isnan(reference)) | (wide == reference)
    if not agree.all():
        return _disagreeing(wide, reference, agree, finite)
    if not finite.any():
        return _incomparable("both the output and the reference are NaN or infinite everywhere")
    inner = _finite(actual[finite], reference[finite], None if x is None else x[finite], limits, dtype)
    place = tuple(int(i) for i in np.argwhere(finite)[inner.worst_index[0]])
    return replace(inner, worst_index=place, elements=reference.size)


def ulps(actual: Array, expected: Expected, dtype: str) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Distance in units in the last place between ``actual`` and ``expected`` rounded to ``dtype``; the same shape.

    0 and -0 are the same number. For finite values.
    """
    kind = numpy_dtype(dtype)
    with np.errstate(over="ignore"):
        rounded = expected.astype(kind)
    a, b = (_rank(np.ascontiguousarray(array)) for array in (actual, rounded))
    unsigned = np.dtype(f"u{kind.itemsize}")
    apart: npt.NDArray[np.unsignedinteger[Any]] = np.maximum(a, b).view(unsigned) - np.minimum(a, b).view(unsigned)
    return apart  # right although the difference need not fit into the signed type


def _rank(array: Array) -> npt.NDArray[np.signedinteger[Any]]:
    """The place of each number among those of its type, counted from zero: as a signed integer of the same size."""
    bits = array.view(np.dtype(f"i{array.itemsize}"))
    negative = bits >> bits.dtype.type(8 * array.itemsize - 1)  # all bits set, or none
    size = bits & np.iinfo(bits.dtype).max
    rank: npt.NDArray[np.signedinteger[Any]] = (size ^ negative) - negative
    return rank


def _finite(actual: Array, reference: Expected, signal: Array | None, limits: Tolerance, dtype: str) -> Metrics:
    """In pieces that fit into a processor's cache, and without copies of the whole in float64."""
    outputs, references = actual.reshape(-1), reference.reshape(-1)
    signals = None if signal is None else signal.reshape(-1)
    count = references.size
    peak = max(float(references.max()), -float(references.min()))
    floor = _RELATIVE_FLOOR * peak
    largest = relative = total = units = 0.0
    worst, ratio = 0, -1.0
    products = np.zeros(3)
    tail = _Tail(np.abs(outputs[:: _Tail.STRIDE].astype(np.float64) - references[:: _Tail.STRIDE]), count)
    for start in range(0, count, _PIECE):
        piece = slice(start, start + _PIECE)
        expected, wide = references[piece], outputs[piece].astype(np.float64)
        error = wide - expected
        np.abs(error, out=error)
        largest = max(largest, float(error.max()))
        total += float(error.sum())
        tail.add(error)
        # einsum, not np.dot: the threads of BLAS get in the way of those of onnxruntime, at 40 times the cost
        products += [
            float(np.einsum("i,i->", *pair)) for pair in ((wide, wide), (expected, expected), (wide, expected))
        ]
        units = max(units, float(ulps(outputs[piece], expected, dtype).max()))
        shares = limits.allowed(expected, None if signals is None else signals[piece], peak)
        np.divide(error, shares, out=shares)
        at = int(shares.argmax())
        if shares[at] > ratio or np.isnan(shares[at]):
            worst, ratio = start + at, float(shares[at])
        if floor > 0.0:
            np.maximum(np.abs(expected, out=wide), floor, out=wide)
            relative = max(relative, float(np.divide(error, wide, out=wide).max()))
    place = tuple(int(i) for i in np.unravel_index(worst, reference.shape))
    passed = ratio <= 1.0
    return Metrics(
        max_abs=largest,
        mean_abs=total / count,
        p99_abs=tail.percentile() if tail.complete else _percentile(np.abs(outputs.astype(np.float64) - references)),
        max_rel=relative if floor > 0.0 or not largest else math.inf,
        max_ulps=units,
        cosine=1.0 if not largest and not peak else _cosine(*products.tolist()),
        ratio=ratio,
        worst_index=place,
        elements=count,
        nonfinite=0,
        passed=passed,
        reason="" if passed else f"{float(outputs[worst]):.6g} instead of {references[worst]:.6g} at {list(place)}",
    )


def _disagreeing(wide: Expected, reference: Expected, agree: Array, finite: Array) -> Metrics:
    """Tensors of which one is NaN or infinite where the other is not: an infinite error."""
    wrong = int((~agree).sum())
    place = tuple(int(i) for i in np.argwhere(~agree)[0])
    more = f", and {wrong} such values in all" if wrong > 1 else ""
    error = np.where(agree, 0.0, math.inf)
    error[finite] = np.abs(wide[finite] - reference[finite])
    return replace(
        _incomparable(f"{wide[place]:.6g} instead of {reference[place]:.6g} at {list(place)}{more}"),
        p99_abs=_percentile(error),
        worst_index=place,
        elements=reference.size,
        nonfinite=wrong,
    )


def _incomparable(reason: str) -> Metrics:
    """Every error infinite."""
    return Metrics(math.inf, math.inf, math.inf, math.inf, math.inf, math.nan, math.inf, (), 0, 0, False, reason)


class _Tail:
    """The largest errors of a comparison, gathered in pieces: enough of them for the 99th percentile.

    ``sample``: every so many-th error, from which it is guessed how large the ones to keep are.
    """

    STRIDE = 64

    def __init__(self, sample: Expected, count: int) -> None:
        self._rank = _percentile_rank(count)
        self._least = float(np.partition(sample, place := int(0.97 * (sample.size - 1)))[place])
        self._kept: list[Expected] = []
        self._dropped = count

    def add(self, error: Expected) -> None:
        kept = error[error >= self._least]
        self._kept.append(kept)
        self._dropped -= kept.size

    @property
    def complete(self) -> bool:
        """Whether the guess was low enough, once all errors were added."""
        return self._dropped <= self._rank

    def percentile(self) -> float:
        return float(np.partition(np.concatenate(self._kept), self._rank - self._dropped)[self._rank - self._dropped])


def _percentile(error: Expected) -> float:
    """The 99th percentile as an element of ``error`` (no interpolation, so that infinities stay what they are)."""
    place = _percentile_rank(error.size)
    return float(np.partition(error, place, axis=None)[place])


def _percentile_rank(count: int) -> int:
    return min(count - 1, math.ceil(0.99 * count) - 1)


def _cosine(squares_a: float, squares_b: float, products: float) -> float:
    """From sums over two tensors that are not both zero."""
    lengths = math.sqrt(squares_a) * math.sqrt(squares_b)
    return max(-1.0, min(1.0, products / lengths)) if lengths else 0.0
