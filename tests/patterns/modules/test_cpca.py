"""CPCA against its formula."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.patterns.modules.cpca import CPCA
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, depthwise, gelu, pointwise, sigmoid


@pytest.mark.parametrize("size", [(7, 7), (5, 11), (1, 1)])
def test_agrees_with_the_formula(size: tuple[int, int]) -> None:
    module = randomised(CPCA(4, 3))
    state = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 4, *size))

    def mlp(pooled: Array) -> Array:
        return pointwise(np.maximum(pointwise(pooled, state, "ca.fc1"), 0), state, "ca.fc2")

    u = gelu(pointwise(x, state, "conv"))
    v = u * (sigmoid(mlp(u.mean((2, 3), keepdims=True))) + sigmoid(mlp(u.max((2, 3), keepdims=True))))
    s = depthwise(v, state, "dconv5_5")
    total = s.copy()
    for k in (7, 11, 21):
        total += depthwise(depthwise(s, state, f"dconv1_{k}"), state, f"dconv{k}_1")
    y = pointwise(pointwise(total, state, "conv") * v, state, "conv")
    np.testing.assert_allclose(run(module, x), y, rtol=1e-11, atol=1e-12)


def test_training() -> None:
    assert_trains(CPCA(8, 2), 8, (9, 8))


def test_widths_below_1_are_refused() -> None:
    with pytest.raises(ValueError, match="channels and hidden of at least 1, got 3 and 0"):
        CPCA(3, 0)
