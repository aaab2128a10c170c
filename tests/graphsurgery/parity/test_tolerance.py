from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.parity.tolerance import TOLERANCES


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


def test_infinite_references_do_not_widen_it() -> None:
    allowed = TOLERANCES["float32"].allowed(np.array([np.inf, 0.5, np.nan]))
    assert allowed[1] == pytest.approx(1e-5 * 0.5 + 1e-5 * 0.5)
