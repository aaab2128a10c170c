"""ECA against its formula in numpy, and against timm."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.eca import ECA
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, sigmoid


def naive(x: Array, weight: Array, bias: Array | float, circular: bool) -> Array:
    means, channels, side = x.mean((2, 3)), x.shape[1], weight.size // 2
    z = np.full_like(means, bias)
    for c in range(channels):
        for j, w in enumerate(weight.reshape(-1)):
            other = c + j - side
            if circular or 0 <= other < channels:
                z[:, c] += w * means[:, other % channels]
    return x * sigmoid(z)[:, :, None, None]


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 5, 9])
def test_agrees_with_the_formula(kernel: int, bias: bool, circular: bool) -> None:
    module = randomised(ECA(kernel, bias=bias, circular=circular))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((3, 7, 4, 5)) + 0.5
    expected = naive(x, given["conv.weight"], given.get("conv.bias", 0.0), circular)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("name", "circular"), [("EcaModule", False), ("CecaModule", True)])
@pytest.mark.parametrize("kernel", [3, 7])
def test_agrees_with_timm(timm_layers: ModuleType, name: str, circular: bool, kernel: int) -> None:
    referee = randomised(getattr(timm_layers, name)(kernel_size=kernel))
    module = ECA(kernel, circular=circular).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-11, atol=1e-13)


def test_keys_and_shapes() -> None:
    assert shapes(ECA(5)) == {"conv.weight": (1, 1, 5)}
    assert shapes(ECA(5, bias=True)) == {"conv.weight": (1, 1, 5), "conv.bias": (1,)}


def test_trains_and_starts_at_a_half() -> None:
    assert_trains(ECA(3, bias=True), 6)
    assert 0.4 < np.mean([scale(ECA(), 64) for _ in range(10)]) < 0.6


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="odd kernel, got 4"):
        ECA(4)


def test_reset_parameters_draws_anew() -> None:
    module = ECA()
    module.conv.weight.data.fill_(9.0)
    module.reset_parameters()
    assert module.conv.weight.abs().max() <= 3**-0.5
