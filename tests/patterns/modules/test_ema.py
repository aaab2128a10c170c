"""EMA against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.ema import EfficientMultiscaleAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, convolution, group_norm, sigmoid, softmax


def naive(x: Array, given: State, groups: int) -> Array:
    k, parts = x.shape[1] // groups, []
    for g in range(groups):
        part = x[:, g * k : (g + 1) * k]
        gates = [
            sigmoid(convolution(part.mean(axis, keepdims=True), given["conv1x1.weight"], given["conv1x1.bias"]))
            for axis in (3, 2)
        ]
        x1 = group_norm(part * gates[0] * gates[1], k, given, "gn")
        x2 = convolution(part, given["conv3x3.weight"], given["conv3x3.bias"])
        p1, p2 = (softmax(z.mean((2, 3), keepdims=True), 1) for z in (x1, x2))
        parts.append(part * sigmoid((p1 * x2 + p2 * x1).sum(1, keepdims=True)))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize(("channels", "factor"), [(6, 2), (8, 8), (5, 1)])
def test_agrees_with_the_formula(channels: int, factor: int) -> None:
    module = randomised(EfficientMultiscaleAttention(channels, factor))
    x = np.random.default_rng(1).standard_normal((3, channels, 4, 7)) * 2
    expected = naive(x, state_of(module), factor)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_the_first_softmax_is_a_constant() -> None:
    """The mean of a normalised channel is the shift of the normalisation: what the template takes for granted."""
    module = randomised(EfficientMultiscaleAttention(12, 3))
    for seed in range(3):
        x = torch.randn(5, 4, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        means = module.gn(x).mean((2, 3))
        torch.testing.assert_close(means, module.gn.bias.expand(5, 4), rtol=0, atol=1e-13)


def test_keys_and_shapes() -> None:
    assert shapes(EfficientMultiscaleAttention(64, 8)) == {
        "conv1x1.weight": (8, 8, 1, 1),
        "conv1x1.bias": (8,),
        "conv3x3.weight": (8, 8, 3, 3),
        "conv3x3.bias": (8,),
        "gn.weight": (8,),
        "gn.bias": (8,),
    }


def test_trains_and_starts_at_a_half() -> None:
    # beta of the normalisation only acts through p1, which is why its gradient is small, and not nought
    assert_trains(EfficientMultiscaleAttention(8, 2), 8)
    assert 0.47 < scale(EfficientMultiscaleAttention(128), 128) < 0.68  # 0.57 for inputs without a mean


def test_identity_setting_is_bit_exact() -> None:
    module = EfficientMultiscaleAttention(16, 4).eval()
    for parameter in (module.conv3x3.weight, module.gn.weight, module.gn.bias):
        nn.init.zeros_(parameter)
    nn.init.constant_(module.conv3x3.bias, 20.0)
    x = 20 * torch.randn(2, 16, 9, 5)
    assert torch.equal(module(x), x)


@pytest.mark.parametrize(("channels", "factor"), [(48, 32), (8, 0), (4, 8)])
def test_channels_that_do_not_make_the_groups_are_refused(channels: int, factor: int) -> None:
    with pytest.raises(ValueError, match=f"a factor that divides {channels}"):
        EfficientMultiscaleAttention(channels, factor)
