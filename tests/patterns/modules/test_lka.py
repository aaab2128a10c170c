"""LKA against its formula, one tap of a kernel at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.lka import LKA, Attention
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, State, depthwise, gelu, pointwise


def unit(x: Array, given: State, prefix: str = "") -> Array:
    far = depthwise(depthwise(x, given, f"{prefix}conv0"), given, f"{prefix}conv_spatial", 3)
    return x * pointwise(far, given, f"{prefix}conv1")


@pytest.mark.parametrize("size", [(7, 7), (5, 23)])
def test_agrees_with_the_formula(size: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, *size))
    alone, wrapped = randomised(LKA(3)), randomised(Attention(3))
    np.testing.assert_allclose(run(alone, x), unit(x, state_of(alone)), rtol=1e-11, atol=1e-12)
    given = state_of(wrapped)
    inner = unit(gelu(pointwise(x, given, "proj_1")), given, "spatial_gating_unit.")
    np.testing.assert_allclose(run(wrapped, x), x + pointwise(inner, given, "proj_2"), rtol=1e-11, atol=1e-12)


def test_kernels_are_the_published_ones() -> None:
    module = LKA(4)
    assert (module.conv0.kernel_size, module.conv0.padding, module.conv0.groups) == ((5, 5), (2, 2), 4)
    far = module.conv_spatial
    assert (far.kernel_size, far.padding, far.dilation, far.groups) == ((7, 7), (9, 9), (3, 3), 4)


def test_identity() -> None:
    module = LKA(4)
    torch.nn.init.zeros_(module.conv1.weight)
    torch.nn.init.ones_(module.conv1.bias)
    x = 20 * torch.randn(2, 4, 9, 8)
    assert torch.equal(module(x), x)


def test_training() -> None:
    assert_trains(LKA(4), 4, (9, 8))
    assert_trains(Attention(4), 4, (9, 8))


def test_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        LKA(0)
