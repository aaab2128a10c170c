"""The distance between an output and its float64 reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from .tolerance import TOLERANCES, Tolerance

Array = npt.NDArray[Any]
Reference = npt.NDArray[np.float64]

_RELATIVE_FLOOR = 1e-3
_BITS: dict[str, tuple[Any, Any]] = {
    "float16": (np.float16, np.uint16),
    "bfloat16": (ml_dtypes.bfloat16, np.uint16),
    "float32": (np.float32, np.uint32),
    "float64": (np.float64, np.uint64),
}


@dataclass(frozen=True)
class Metrics:
    """One comparison. Errors are ``inf`` where the output is NaN or infinite and the reference is not."""

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
    worst_index: tuple[int, ...]
    """Where ``ratio`` was found."""
    elements: int
    nonfinite: int
    """Elements that are NaN or infinite in the output, but not in the reference."""
    passed: bool
    reason: str = ""
    """Why it did not pass; "" if it did."""


def compare(actual: Array, expected: Array, dtype: str, tolerance: Tolerance | None = None) -> Metrics:
    """Compare an output with its reference.

    ``actual``: any shape, of element type ``dtype`` ("float32", "float16", "bfloat16" or "float64"). ``expected``:
    float64, the same shape. Fails where the shapes or the element type differ, where nothing can be compared, and
    where an output is NaN or infinite although the reference is finite. NaN against NaN, and an infinity against the
    same one, agree.
    """
    wanted = np.dtype(_BITS[dtype][0])
    if actual.shape != expected.shape:
        return _incomparable(f"the output has shape {list(actual.shape)} instead of {list(expected.shape)}")
    if actual.dtype != wanted:
        return _incomparable(f"the output is {actual.dtype} instead of {dtype}")
    if expected.size == 0:
        return _incomparable("the output is empty")
    limits = tolerance or TOLERANCES[dtype]
    reference: Reference = np.asarray(expected, np.float64)
    wide: Reference = actual.astype(np.float64)
    finite = np.isfinite(reference) & np.isfinite(wide)
    if not finite.all():
        return _with_nonfinite(actual, wide, reference, finite, dtype, limits)
    return _finite(actual, wide, reference, dtype, limits)


def ulps(actual: Array, expected: Reference, dtype: str) -> npt.NDArray[np.uint64]:
    """Distance in units in the last place between ``actual`` and ``expected`` rounded to ``dtype``; the same shape.

    0 and -0 are the same number. For finite values.
    """
    kind, unsigned = _BITS[dtype]
    with np.errstate(over="ignore"):
        rounded = expected.astype(kind)
    sign = unsigned(1) << unsigned(8 * np.dtype(kind).itemsize - 1)
    places = []
    for array in (np.ascontiguousarray(actual), np.ascontiguousarray(rounded)):
        bits = array.view(unsigned)
        places.append(((bits & sign) != 0, (bits & ~sign).astype(np.uint64)))
    (a_negative, a), (b_negative, b) = places
    apart: npt.NDArray[np.uint64] = np.where(a_negative == b_negative, np.maximum(a, b) - np.minimum(a, b), a + b)
    return apart


def _finite(actual: Array, wide: Reference, reference: Reference, dtype: str, limits: Tolerance) -> Metrics:
    error = np.abs(wide - reference)
    size = np.abs(reference)
    floor = _RELATIVE_FLOOR * float(size.max())
    relative = float((error / np.maximum(size, floor)).max()) if floor > 0.0 else (math.inf if error.any() else 0.0)
    shares = error / limits.allowed(reference)
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


def _with_nonfinite(
    actual: Array, wide: Reference, reference: Reference, finite: Array, dtype: str, limits: Tolerance
) -> Metrics:
    """Tensors with NaN or infinities: those that agree are left out, any that does not agree is an infinite error."""
    agree = finite | (np.isnan(wide) & np.isnan(reference)) | (wide == reference)
    wrong = int((~agree).sum())
    if not wrong and not finite.any():
        return _incomparable("both the output and the reference are NaN or infinite everywhere")
    if not wrong:
        inner = _finite(actual[finite], wide[finite], reference[finite], dtype, limits)
        place = tuple(int(i) for i in np.argwhere(finite)[inner.worst_index[0]])
        return Metrics(**{**inner.__dict__, "worst_index": place, "elements": reference.size})
    place = tuple(int(i) for i in np.argwhere(~agree)[0])
    reason = f"{wide[place]} instead of {reference[place]:.6g} at {list(place)}, and {wrong} such values in all"
    error = np.where(agree, 0.0, math.inf)
    error[finite] = np.abs(wide[finite] - reference[finite])
    p99 = _percentile(error)
    return Metrics(
        math.inf, math.inf, p99, math.inf, math.inf, math.nan, math.inf, place, reference.size, wrong, False, reason
    )


def _incomparable(reason: str) -> Metrics:
    return Metrics(math.inf, math.inf, math.inf, math.inf, math.inf, math.nan, math.inf, (), 0, 0, False, reason)


def _percentile(error: Reference) -> float:
    """The 99th percentile as an element of ``error`` (no interpolation, so that infinities stay what they are)."""
    place = min(error.size - 1, math.ceil(0.99 * error.size) - 1)
    return float(np.partition(error, place, axis=None)[place])


def _cosine(a: Reference, b: Reference) -> float:
    # Sums of products, not np.dot: the threads of BLAS get in the way of those of onnxruntime, at 40 times the cost.
    lengths = math.sqrt(float((a * a).sum())) * math.sqrt(float((b * b).sum()))
    if lengths == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return max(-1.0, min(1.0, float((a * b).sum()) / lengths))
