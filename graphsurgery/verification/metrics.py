"""The distance between an output and its float64 reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..feature_map import Array, numpy_dtype
from .tolerance import TOLERANCES, Tolerance

Expected = npt.NDArray[np.float64]

_RELATIVE_FLOOR = 1e-3


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
    wide: Expected = actual.astype(np.float64)
    finite = np.isfinite(reference) & np.isfinite(wide)
    if finite.all():
        return _finite(actual, reference, limits.allowed(reference, x), dtype)
    agree = finite | (np.isnan(wide) & np.isnan(reference)) | (wide == reference)
    if not agree.all():
        return _disagreeing(wide, reference, agree, finite)
    if not finite.any():
        return _incomparable("both the output and the reference are NaN or infinite everywhere")
    allowed = limits.allowed(reference[finite], None if x is None else x[finite])
    inner = _finite(actual[finite], reference[finite], allowed, dtype)
    place = tuple(int(i) for i in np.argwhere(finite)[inner.worst_index[0]])
    return replace(inner, worst_index=place, elements=reference.size)


def ulps(actual: Array, expected: Expected, dtype: str) -> npt.NDArray[np.uint64]:
    """Distance in units in the last place between ``actual`` and ``expected`` rounded to ``dtype``; the same shape.

    0 and -0 are the same number. For finite values.
    """
    kind = numpy_dtype(dtype)
    unsigned = np.dtype(f"u{kind.itemsize}").type
    with np.errstate(over="ignore"):
        rounded = expected.astype(kind)
    sign = unsigned(1) << unsigned(8 * kind.itemsize - 1)
    places = []
    for array in (np.ascontiguousarray(actual), np.ascontiguousarray(rounded)):
        bits = array.view(unsigned)
        places.append(((bits & sign) != 0, (bits & ~sign).astype(np.uint64)))
    (a_negative, a), (b_negative, b) = places
    apart: npt.NDArray[np.uint64] = np.where(a_negative == b_negative, np.maximum(a, b) - np.minimum(a, b), a + b)
    return apart


def _finite(actual: Array, reference: Expected, allowed: Expected, dtype: str) -> Metrics:
    wide = actual.astype(np.float64)
    error = np.abs(wide - reference)
    size = np.abs(reference)
    floor = _RELATIVE_FLOOR * float(size.max())
    relative = float((error / np.maximum(size, floor)).max()) if floor > 0.0 else (math.inf if error.any() else 0.0)
    shares = error / allowed
    worst = int(shares.argmax())
    ratio = float(shares.flat[worst])
    place = tuple(int(i) for i in np.unravel_index(worst, shares.shape))
    passed = ratio <= 1.0
    return Metrics(
        max_abs=float(error.max()),
        mean_abs=float(error.mean()),
        p99_abs=_percentile(error),
        max_rel=relative,
        max_ulps=float(ulps(actual, reference, dtype).max()),
        cosine=_cosine(wide, reference),
        ratio=ratio,
        worst_index=place,
        elements=error.size,
        nonfinite=0,
        passed=passed,
        reason="" if passed else f"{wide[place]:.6g} instead of {reference[place]:.6g} at {list(place)}",
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


def _percentile(error: Expected) -> float:
    """The 99th percentile as an element of ``error`` (no interpolation, so that infinities stay what they are)."""
    place = min(error.size - 1, math.ceil(0.99 * error.size) - 1)
    return float(np.partition(error, place, axis=None)[place])


def _cosine(a: Expected, b: Expected) -> float:
    # Sums of products, not np.dot: the threads of BLAS get in the way of those of onnxruntime, at 40 times the cost.
    lengths = math.sqrt(float((a * a).sum())) * math.sqrt(float((b * b).sum()))
    if lengths == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return max(-1.0, min(1.0, float((a * b).sum()) / lengths))
