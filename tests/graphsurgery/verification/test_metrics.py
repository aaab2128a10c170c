from __future__ import annotations

import math
from dataclasses import asdict

import ml_dtypes
import numpy as np
import pytest

from graphsurgery.verification.metrics import compare, ulps
from graphsurgery.verification.tolerance import TOLERANCES, Tolerance

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
each_dtype = pytest.mark.parametrize("dtype", list(DTYPES))


def _expected(scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 5, 7)) * scale


@each_dtype
def test_the_reference_rounded_to_the_type_passes(dtype: str) -> None:
    expected = _expected()
    found = compare(expected.astype(DTYPES[dtype]), expected, dtype)
    assert found.passed
    assert found.max_ulps == 0
    assert found.ratio <= 1
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert found.elements == expected.size


@each_dtype
@pytest.mark.parametrize("steps", [1, 3])
def test_ulps_count_the_numbers_in_between(dtype: str, steps: int) -> None:
    expected = _expected().astype(DTYPES[dtype])
    actual = expected
    for _ in range(steps):
        actual = np.nextafter(actual, np.array(np.inf, expected.dtype))
    found = ulps(actual, expected.astype(np.float64), dtype)
    assert (found == steps).all()
    assert compare(actual, expected.astype(np.float64), dtype).max_ulps == steps


@each_dtype
def test_ulps_across_zero(dtype: str) -> None:
    kind = np.dtype(DTYPES[dtype])
    smallest = np.nextafter(np.zeros(1, kind), np.ones(1, kind))
    assert ulps(-smallest, smallest.astype(np.float64), dtype)[0] == 2
    assert ulps(np.array([-0.0], kind), np.array([0.0]), dtype)[0] == 0


def test_ulps_of_float64_far_apart_do_not_overflow() -> None:
    assert ulps(np.array([-1e300]), np.array([1e300]), "float64")[0] > 2**63


@each_dtype
def test_one_wrong_element_fails_and_is_found(dtype: str) -> None:
    expected = _expected()
    actual = expected.astype(DTYPES[dtype])
    actual[1, 2, 3, 4] += 0.5
    found = compare(actual, expected, dtype)
    assert not found.passed
    assert found.worst_index == (1, 2, 3, 4)
    assert found.max_abs == pytest.approx(0.5, rel=0.1)
    assert "[1, 2, 3, 4]" in found.reason
    assert found.p99_abs < 0.05 < found.max_abs


@each_dtype
def test_the_verdict_turns_at_the_stated_tolerance(dtype: str) -> None:
    tolerance = TOLERANCES[dtype]
    expected = np.full((1, 1, 4, 4), 2.0)
    allowed = tolerance.absolute + 2 * tolerance.relative
    unit = float(np.spacing(np.array(2.0, DTYPES[dtype])))
    below, above = (2.0 + unit * math.floor(allowed / unit), 2.0 + unit * (math.floor(allowed / unit) + 1))
    assert compare(np.full_like(expected, below).astype(DTYPES[dtype]), expected, dtype).passed
    assert not compare(np.full_like(expected, above).astype(DTYPES[dtype]), expected, dtype).passed


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize("magnitude", [1e-3, 1e-1, 1.0, 20.0])
def test_a_constant_gate_in_place_of_a_real_one_fails_at_every_magnitude(dtype: str, magnitude: float) -> None:
    x = (_expected() * magnitude).astype(DTYPES[dtype]).astype(np.float64)
    gate = 1 / (1 + np.exp(-0.5 - (_expected() ** 2) / 4))
    constant = (x * 0.6225).astype(DTYPES[dtype])
    assert not compare(constant, x * gate, dtype).passed


@each_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_fail_where_the_reference_is_finite(dtype: str, bad: float) -> None:
    expected = _expected()
    actual = expected.astype(DTYPES[dtype])
    actual[0, 1, 2, 3] = bad
    found = compare(actual, expected, dtype)
    assert not found.passed
    assert found.nonfinite == 1
    assert found.worst_index == (0, 1, 2, 3)
    assert math.isinf(found.max_abs)
    assert math.isinf(found.ratio)


def test_a_finite_value_fails_where_the_reference_is_not() -> None:
    expected = _expected()
    actual = expected.astype(np.float32)
    expected[0, 0, 0, 0] = np.nan
    assert not compare(actual, expected, "float32").passed


def test_equal_infinities_agree_and_the_others_are_still_compared() -> None:
    expected = _expected()
    expected[0, 0, 0, 1], expected[0, 0, 0, 2] = np.inf, np.nan
    actual = expected.astype(np.float32)
    assert compare(actual, expected, "float32").passed
    actual[1, 2, 4, 6] += 1
    found = compare(actual, expected, "float32")
    assert not found.passed
    assert found.worst_index == (1, 2, 4, 6)


def test_the_error_of_a_gate_near_zero_is_measured_by_the_input() -> None:
    x = np.full((1, 1, 2, 2), 80.0)
    y = x * 1e-9
    wide = TOLERANCES["float16"].weighing_input()
    off_by_a_unit = (x * 5e-4).astype(np.float16)
    assert not compare(off_by_a_unit, y, "float16", signal=x).passed
    assert compare(off_by_a_unit, y, "float16", signal=x, tolerance=wide).passed
    assert not compare((x * 2e-3).astype(np.float16), y, "float16", signal=x, tolerance=wide).passed


def test_nothing_but_nan_is_no_agreement() -> None:
    nothing = np.full((1, 1, 2, 2), np.nan)
    assert not compare(nothing.astype(np.float32), nothing, "float32").passed


@pytest.mark.parametrize(
    ("actual", "word"),
    [
        (np.zeros((1, 3, 5, 7), np.float32), "shape"),
        (np.zeros((2, 3, 5, 7), np.float64), "float64 instead of float32"),
    ],
)
def test_another_shape_or_type_fails(actual: np.ndarray, word: str) -> None:
    found = compare(actual, np.zeros((2, 3, 5, 7)), "float32")
    assert not found.passed
    assert word in found.reason


def test_an_empty_output_fails() -> None:
    assert not compare(np.zeros((0, 3), np.float32), np.zeros((0, 3)), "float32").passed


def test_zero_against_zero() -> None:
    zeros = np.zeros((1, 2, 3, 3))
    found = compare(zeros.astype(np.float32), zeros, "float32")
    assert found.passed
    assert (found.cosine, found.max_rel, found.ratio) == (1.0, 0.0, 0.0)
    wrong = compare(np.full((1, 2, 3, 3), 1e-7, np.float32), zeros, "float32")
    assert not wrong.passed
    assert wrong.cosine == 0.0
    assert math.isinf(wrong.max_rel)


def test_relative_error_does_not_explode_near_zero() -> None:
    expected = np.array([1000.0, 1e-9, -500.0])
    actual = np.array([1000.0, 1e-3, -500.0], np.float32)
    assert compare(actual, expected, "float32").max_rel == pytest.approx(1e-3, rel=1e-3)


def test_figures_agree_with_their_plain_definitions() -> None:
    expected = _expected(5.0)
    actual = (expected + 1e-3 * np.random.default_rng(1).standard_normal(expected.shape)).astype(np.float32)
    error = np.abs(actual.astype(np.float64) - expected)
    found = compare(actual, expected, "float32")
    a, b = actual.astype(np.float64).ravel(), expected.ravel()
    assert found.max_abs == error.max()
    assert found.mean_abs == pytest.approx(error.mean())
    assert np.sort(error, axis=None)[-4] <= found.p99_abs <= error.max()
    assert found.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert found.ratio == pytest.approx((error / (1e-5 + 1e-5 * np.abs(expected))).max())
    assert set(asdict(found)) >= {"max_abs", "mean_abs", "p99_abs", "max_rel", "max_ulps", "cosine"}


def test_one_of_a_hundred_errors_lies_above_the_99th_percentile() -> None:
    error = np.arange(1.0, 201.0)
    assert compare(error.astype(np.float32), np.zeros(200), "float32").p99_abs == 198.0


def test_the_first_value_that_is_not_finite_is_named() -> None:
    expected = _expected()
    actual = expected.astype(np.float32)
    actual[0, 1, 2, 3] = actual[1, 2, 4, 6] = np.nan
    found = compare(actual, expected, "float32")
    assert (found.worst_index, found.nonfinite) == ((0, 1, 2, 3), 2)
    assert found.reason.endswith(" at [0, 1, 2, 3], and 2 such values in all")


def test_the_input_is_weighed_beside_infinities_too() -> None:
    x = np.full((1, 1, 2, 2), 80.0)
    expected = np.array([[[[np.inf, 0.0], [0.0, 0.0]]]])
    actual = np.where(np.isinf(expected), np.inf, x * 5e-4).astype(np.float16)
    wide = TOLERANCES["float16"].weighing_input()
    assert compare(actual, expected, "float16", signal=x, tolerance=wide).passed
    assert not compare(actual, expected, "float16", signal=x / 10, tolerance=wide).passed


def _pieces(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """An output and its reference that are compared in several pieces, the last of them short."""
    expected = np.random.default_rng(1).standard_normal((1, 7, 90, 90)) * 3
    noise = np.random.default_rng(2).standard_normal(expected.shape)
    return (expected * (1 + 1e-6 * noise)).astype(DTYPES[dtype]), expected


@each_dtype
@pytest.mark.parametrize("where", ["everywhere", "in the sample", "nowhere"])
def test_pieces_give_the_figures_of_the_whole(dtype: str, where: str) -> None:
    actual, expected = _pieces(dtype)
    if where != "everywhere":
        expected = actual.astype(np.float64)
    if where == "in the sample":  # from which the size of the errors is guessed: too large
        expected.reshape(-1)[::64] *= 1 + 1e-3 * np.random.default_rng(3).random(expected.size // 64 + 1)
    tolerance = TOLERANCES[dtype].weighing_input()
    found = compare(actual, expected, dtype, signal=expected * 2, tolerance=tolerance)
    error = np.abs(actual.astype(np.float64) - expected)
    size = np.abs(expected)
    shares = error / tolerance.allowed(expected, expected * 2)
    assert found.max_abs == error.max()
    assert found.p99_abs == np.sort(error, axis=None)[math.ceil(0.99 * error.size) - 1]
    assert found.max_rel == (error / np.maximum(size, 1e-3 * size.max())).max()
    assert found.max_ulps == ulps(actual, expected, dtype).max()
    assert found.ratio == shares.max()
    assert found.worst_index == np.unravel_index(shares.argmax(), shares.shape)
    assert found.mean_abs == pytest.approx(error.mean(), rel=1e-13)
    flat = actual.astype(np.float64).ravel(), expected.ravel()
    assert found.cosine == pytest.approx(np.dot(*flat) / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]), abs=1e-13)
    assert found.elements == error.size


def test_a_permitted_error_that_is_not_a_number_fails() -> None:
    actual, expected = _pieces("float32")
    expected = actual.astype(np.float64)
    expected[0, 0, 0, 5] = actual[0, 0, 0, 5] = 0.0
    with np.errstate(invalid="ignore"):
        assert not compare(actual, expected, "float32", tolerance=Tolerance(0.0, 1e-5)).passed


def test_tensors_of_zeros_have_the_same_direction_and_one_has_none() -> None:
    zeros = np.zeros((1, 1, 2, 2))
    assert compare(zeros.astype(np.float32), zeros, "float32").cosine == 1.0
    assert compare(zeros.astype(np.float32), zeros + 1.0, "float32").cosine == 0.0
    assert compare((zeros + 1.0).astype(np.float32), zeros, "float32").cosine == 0.0
