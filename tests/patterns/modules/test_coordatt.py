"""Coordinate Attention against its formula in numpy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.coordatt import CoordinateAttention, SimpleCoordinateAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, convolution, sigmoid


def naive(x: Array, given: State, eps: float) -> Array:
    def strip(means: Array, gate: str) -> Array:
        hidden = convolution(means, given["conv1.weight"], given.get("conv1.bias"))
        hidden = batch_norm(hidden, given, "bn1", eps)
        hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
        return sigmoid(convolution(hidden, given[f"{gate}.weight"], given.get(f"{gate}.bias")))

    y: Array = x * strip(x.mean(3, keepdims=True), "conv_h") * strip(x.mean(2, keepdims=True), "conv_w")
    return y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_agrees_with_the_formula(bias: bool, skip: bool, eps: float) -> None:
    module = randomised(CoordinateAttention(5, 3, bias=bias, skip=skip, bn_eps=eps))
    x = np.random.default_rng(1).standard_normal((3, 5, 4, 7)) * 3
    expected = naive(x, state_of(module), eps) + (x if skip else 0)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_the_simple_form_agrees_with_the_formula(bias: bool, skip: bool) -> None:
    module = randomised(SimpleCoordinateAttention(5, 3, bias=bias, skip=skip))
    given, x = state_of(module), np.random.default_rng(1).standard_normal((3, 5, 4, 7)) * 3

    def linear(v: Array, name: str) -> Array:
        return v @ given[f"{name}.weight"].T + given.get(f"{name}.bias", 0)

    expected = np.empty_like(x)
    for n, c, i, j in np.ndindex(*x.shape):
        row, column = (linear(v, "fc1") for v in (x[n, :, i].mean(1), x[n, :, :, j].mean(1)))
        logits = linear(row * sigmoid(row), "fc_h") + linear(column * sigmoid(column), "fc_w")
        expected[n, c, i, j] = x[n, c, i, j] * (sigmoid(logits[c]) + skip)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
def test_the_simple_form_is_timms(timm_layers: ModuleType, bias: bool) -> None:
    from timm.layers.coord_attn import SimpleCoordAttn as Referee

    referee = randomised(Referee(48, bias=bias, has_skip=True))
    module = SimpleCoordinateAttention(48, 8, bias=bias, skip=True).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 48, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-12, atol=1e-14)


def test_statistics_in_training_are_those_of_rows_and_columns_together() -> None:
    module = randomised(CoordinateAttention(5, 3)).train()
    before, x = state_of(module), torch.randn(2, 5, 4, 7, dtype=torch.float64)
    module(x)
    strip = torch.cat([x.mean(3), x.mean(2)], 2).numpy()[..., None]
    hidden = convolution(strip, before["conv1.weight"], before["conv1.bias"])
    expected = 0.9 * before["bn1.running_mean"] + 0.1 * hidden.mean((0, 2, 3))
    np.testing.assert_allclose(state_of(module)["bn1.running_mean"], expected, rtol=1e-11)


def test_keys_and_shapes() -> None:
    bn = {f"bn1.{part}": (3,) for part in ("weight", "bias", "running_mean", "running_var")}
    weights = {"conv1.weight": (3, 5, 1, 1), "conv_h.weight": (5, 3, 1, 1), "conv_w.weight": (5, 3, 1, 1)}
    assert shapes(CoordinateAttention(5, 3, bias=False)) == bn | weights
    biases = {"conv1.bias": (3,), "conv_h.bias": (5,), "conv_w.bias": (5,)}
    assert shapes(CoordinateAttention(5, 3)) == bn | weights | biases


def test_trains_and_starts_at_a_quarter() -> None:
    assert_trains(CoordinateAttention(6, 4), 6)
    assert_trains(SimpleCoordinateAttention(6, 4), 6)
    assert 0.2 < scale(CoordinateAttention(128, 8), 128) < 0.3


def test_identity_setting_is_bit_exact() -> None:
    module = CoordinateAttention(16, 8).eval()
    for layer in (module.conv_h, module.conv_w):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, 20.0)
    x = 20 * torch.randn(2, 16, 9, 5)
    assert torch.equal(module(x), x)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        CoordinateAttention(8, 0)
    with pytest.raises(ValueError, match="at least 1"):
        SimpleCoordinateAttention(0, 8)
