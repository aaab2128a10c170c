"""Whether a block's gate, its output over its input, still depends on the input.

In half precision a gate can become the same number everywhere without an overflow that shows: SimAM's sum of squares
becomes infinite, every energy 0, and every gate sigmoid(0.5) = 0.622.
"""

from __future__ import annotations

import numpy as np

from tests.patterns.attention.harness import Array

_VISIBLE = 0.01
"""Smallest standard deviation of the right gate that float16, whose results are off by a thousandth, can show."""


def assert_gate_follows(y: Array, expected: Array, x: Array, what: str = "") -> bool:
    """No inf or NaN, and y / x varies over channels and positions as the float64 module's does.

    What is left when the module's gate is taken off it must vary less than half as much. Tells whether there was
    anything to see: a gate that does not vary in the module need not vary.
    """
    assert np.isfinite(y.astype(np.float64)).all(), f"{what}: not finite"
    wide = x.astype(np.float64)
    large = np.abs(wide) > 0.3 * wide.std()
    gate, right = y.astype(np.float64)[large] / wide[large], expected[large] / wide[large]
    if right.std() < _VISIBLE:
        return False
    assert gate.std() > 0.1 * right.std(), f"{what}: the gate is {gate.mean():.3f} everywhere"
    assert (gate - right).std() < 0.5 * right.std(), f"{what}: the gate varies, and not as it should"
    return True
