from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.verification.tolerance import TOLERANCES


def test_the_stated_numbers() -> None:
    assert {name: str(tolerance) for name, tolerance in TOLERANCES.items()} == {
        "float32": "1e-05 + 1e-05*|y|",
        "float16": "0.0025 + 0.001*|y|",
        "bfloat16": "0.02 + 0.01*|y|",
        "float64": "1e-10 + 1e-10*|y|",
    }


@pytest.mark.parametrize(("peak", "scale"), [(1e-6, 1e-3), (1e-2, 1e-2), (1.0, 1.0), (80.0, 1.0)])
def test_the_absolute_part_shrinks_with_a_signal_below_one(peak: float, scale: float) -> None:
    expected = np.array([0.0, peak, -peak / 2])
    allowed = TOLERANCES["float16"].allowed(expected)
    np.testing.assert_allclose(allowed, 2.5e-3 * scale + 1e-3 * np.abs(expected), rtol=1e-12)


def test_the_input_counts_only_where_it_is_weighed() -> None:
    expected, signal = np.array([0.0, 1.0, 1.0]), np.array([50, 2, 0.5], np.float16)
    stated = TOLERANCES["float16"]
    np.testing.assert_allclose(stated.allowed(expected, signal), 2.5e-3 + 1e-3 * expected, rtol=1e-12)
    allowed = stated.weighing_input().allowed(expected, signal)
    np.testing.assert_allclose(allowed, 2.5e-3 + 1e-3 * np.array([50, 2, 1]), rtol=1e-12)


def test_infinite_inputs_do_not_widen_it() -> None:
    allowed = (
        TOLERANCES["float32"].weighing_input().allowed(np.array([0.5, 0.5]), np.array([np.inf, np.nan], np.float32))
    )
    np.testing.assert_allclose(allowed, 1e-5, rtol=1e-12)


def test_twice_as_wide() -> None:
    tolerance = TOLERANCES["float16"]
    assert np.array_equal(tolerance.weighing_input(2).allowed(np.ones(3)), 2 * tolerance.allowed(np.ones(3)))
