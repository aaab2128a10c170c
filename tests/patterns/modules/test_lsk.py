"""LSK against its formula."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch.nn import functional

from graphsurgery.patterns.modules.lsk import LSK, LSKAttention
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, depthwise, gelu, pointwise, sigmoid


def unit(x: Array, state: Mapping[str, Array]) -> Array:
    a = depthwise(x, state, "conv0")
    b = depthwise(a, state, "conv_spatial", 3)
    a, b = pointwise(a, state, "conv1"), pointwise(b, state, "conv2")
    both = np.concatenate([a, b], axis=1)
    pooled = np.stack([both.mean(axis=1), both.max(axis=1)], axis=1)
    weight, bias = (torch.from_numpy(state[f"conv_squeeze.{part}"]) for part in ("weight", "bias"))
    s = sigmoid(functional.conv2d(torch.from_numpy(pooled), weight, bias, padding=3).numpy())
    return x * pointwise(a * s[:, :1] + b * s[:, 1:], state, "conv")


@pytest.mark.parametrize("size", [(7, 7), (5, 11)])
def test_the_unit_agrees_with_the_formula(size: tuple[int, int]) -> None:
    module = randomised(LSK(4))
    x = np.random.default_rng(1).standard_normal((2, 4, *size))
    np.testing.assert_allclose(run(module, x), unit(x, state_of(module)), rtol=1e-11, atol=1e-12)


def test_the_attention_agrees_with_the_formula() -> None:
    module = randomised(LSKAttention(4))
    state = state_of(module)
    inner = {key.removeprefix("spatial_gating_unit."): values for key, values in state.items()}
    x = np.random.default_rng(1).standard_normal((2, 4, 6, 9))
    y = x + pointwise(unit(gelu(pointwise(x, state, "proj_1")), inner), state, "proj_2")
    np.testing.assert_allclose(run(module, x), y, rtol=1e-11, atol=1e-12)


def test_identity() -> None:
    x = 20 * torch.randn(2, 4, 9, 8)
    one, two = LSK(4), LSKAttention(4)
    torch.nn.init.zeros_(one.conv.weight)
    torch.nn.init.ones_(one.conv.bias)
    assert torch.equal(one(x), x)
    for parameter in two.proj_2.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(two(x), x)


@pytest.mark.parametrize("kind", [LSK, LSKAttention])
def test_training(kind: type[torch.nn.Module]) -> None:
    assert_trains(kind(4), 4, (9, 8))


@pytest.mark.parametrize("channels", [0, 3])
def test_an_odd_number_of_channels_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"an even number of channels, got {channels}"):
        LSK(channels)
