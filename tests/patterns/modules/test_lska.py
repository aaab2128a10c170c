"""LSKA against its formula, one tap of a kernel at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.lska import LSKA, Attention
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, State, depthwise, gelu, pointwise

PUBLISHED = {
    7: (3, 3, 2, 2),
    11: (3, 5, 2, 4),
    23: (5, 7, 3, 9),
    35: (5, 11, 3, 15),
    41: (5, 13, 3, 18),
    53: (5, 17, 3, 24),
}
"""k_size -> near kernel, far kernel, dilation and padding of the far ones, as the published code lists them"""


def unit(x: Array, state: State, dilation: int, prefix: str = "") -> Array:
    a = depthwise(depthwise(x, state, f"{prefix}conv0h"), state, f"{prefix}conv0v")
    for layer in ("conv_spatial_h", "conv_spatial_v"):
        a = depthwise(a, state, f"{prefix}{layer}", dilation)
    return x * pointwise(a, state, f"{prefix}conv1")


@pytest.mark.parametrize("k_size", [7, 23])
def test_the_wrapper_agrees_with_the_formula(k_size: int) -> None:
    module = randomised(Attention(3, k_size))
    state, x = state_of(module), np.random.default_rng(1).standard_normal((2, 3, 5, 11))
    inner = unit(gelu(pointwise(x, state, "proj_1")), state, PUBLISHED[k_size][2], "spatial_gating_unit.")
    np.testing.assert_allclose(run(module, x), x + pointwise(inner, state, "proj_2"), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 7), (5, 11)])
@pytest.mark.parametrize("k_size", [7, 11, 23])
def test_agrees_with_the_formula(k_size: int, size: tuple[int, int]) -> None:
    module = randomised(LSKA(3, k_size))
    x = np.random.default_rng(1).standard_normal((2, 3, *size))
    expected = unit(x, state_of(module), PUBLISHED[k_size][2])
    np.testing.assert_allclose(run(module, x), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("k_size", PUBLISHED)
def test_kernels_are_the_published_ones(k_size: int) -> None:
    near, far, dilation, padding = PUBLISHED[k_size]
    module = LSKA(4, k_size)
    assert module.conv0h.kernel_size == (1, near)
    assert module.conv0v.kernel_size == (near, 1)
    assert (module.conv_spatial_h.kernel_size, module.conv_spatial_h.padding) == ((1, far), (0, padding))
    assert (module.conv_spatial_v.kernel_size, module.conv_spatial_v.padding) == ((far, 1), (padding, 0))
    assert module.conv_spatial_v.dilation == (dilation, dilation)


def test_identity() -> None:
    module = LSKA(4)
    torch.nn.init.zeros_(module.conv1.weight)
    torch.nn.init.ones_(module.conv1.bias)
    x = 20 * torch.randn(2, 4, 9, 8)
    assert torch.equal(module(x), x)


def test_training() -> None:
    assert_trains(LSKA(4), 4, (9, 8))
    assert_trains(Attention(4), 4, (9, 8))


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel sizes 7, 11, 23, 35, 41, 53, not 9"):
        LSKA(4, 9)
    with pytest.raises(ValueError, match="at least one channel"):
        LSKA(0)
