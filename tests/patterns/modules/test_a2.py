"""Double attention against the paper's equations, one feature and one attention map at a time."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.patterns.modules.a2 import DoubleAttention
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import pointwise, softmax


@pytest.mark.parametrize("reconstruct", [True, False])
@pytest.mark.parametrize("size", [(6, 6), (4, 9), (1, 1)])
def test_agrees_with_the_formula(size: tuple[int, int], reconstruct: bool) -> None:
    c_m = 4 if reconstruct else 6
    module = randomised(DoubleAttention(6, c_m, 5, reconstruct), 1.0)
    state = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 6, *size))
    n, positions = 2, size[0] * size[1]
    a, b, v = (pointwise(x, state, name).reshape(n, -1, positions) for name in ("convA", "convB", "convV"))
    z = np.zeros((n, c_m, positions))
    for image in range(n):
        gathered = np.stack([a[image] @ softmax(b[image, k], 0) for k in range(5)], axis=1)
        for position in range(positions):
            z[image, :, position] = gathered @ softmax(v[image, :, position], 0)
    y = z.reshape(n, c_m, *size)
    y = pointwise(y, state, "conv_reconstruct") if reconstruct else y
    np.testing.assert_allclose(run(module, x), y, rtol=1e-11, atol=1e-12)


def test_images_do_not_meet() -> None:
    """In the ports they do: their softmax is over the batch."""
    module = randomised(DoubleAttention(6, 4, 5))
    x = np.random.default_rng(1).standard_normal((3, 6, 5, 4))
    np.testing.assert_allclose(run(module, x)[1:2], run(module, x[1:2]), rtol=1e-12)


def test_training() -> None:
    assert_trains(DoubleAttention(6, 4, 5), 6, (9, 8))


def test_numbers_below_1_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 6, 0 and 5"):
        DoubleAttention(6, 0, 5)
    with pytest.raises(ValueError, match="without reconstruction needs c_m = 6, got 4"):
        DoubleAttention(6, 4, 5, reconstruct=False)
