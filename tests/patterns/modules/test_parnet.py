"""ParNet attention against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.patterns.modules.parnet import ParNetAttention
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import batch_norm, convolution, pointwise, sigmoid


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_agrees_with_the_formula(eps: float) -> None:
    module = randomised(ParNetAttention(3, eps))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 7))
    near = batch_norm(pointwise(x, given, "conv1x1.0"), given, "conv1x1.1", eps)
    wide = convolution(x, given["conv3x3.0.weight"], given["conv3x3.0.bias"])
    gate = sigmoid(pointwise(x.mean((2, 3), keepdims=True), given, "sse.1"))
    z = near + batch_norm(wide, given, "conv3x3.1", eps) + x * gate
    np.testing.assert_allclose(run(module, x), z * sigmoid(z), rtol=1e-11, atol=1e-12)


def test_keys_and_shapes() -> None:
    expected: dict[str, tuple[int, ...]] = {"sse.1.weight": (4, 4, 1, 1), "sse.1.bias": (4,)}
    for branch, side in (("conv1x1", 1), ("conv3x3", 3)):
        expected |= {f"{branch}.0.weight": (4, 4, side, side), f"{branch}.0.bias": (4,)}
        expected |= {f"{branch}.1.{part}": (4,) for part in ("weight", "bias", "running_mean", "running_var")}
    assert shapes(ParNetAttention(4)) == expected


def test_training() -> None:
    assert_trains(ParNetAttention(4), 4)


def test_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        ParNetAttention(0)
