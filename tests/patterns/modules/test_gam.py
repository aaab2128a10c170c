"""GAM against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.gam import VARIANTS, GlobalAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, convolution, sigmoid


def naive(x: Array, given: State, variant: str, groups: int, eps: float) -> Array:
    z = np.empty_like(x)
    for n, i, j in np.ndindex(x.shape[0], *x.shape[2:]):
        hidden = given["channel_attention.0.weight"] @ x[n, :, i, j] + given["channel_attention.0.bias"]
        gate = given["channel_attention.2.weight"] @ np.maximum(hidden, 0) + given["channel_attention.2.bias"]
        z[n, :, i, j] = x[n, :, i, j] * (sigmoid(gate) if variant == "cv-attention" else gate)
    layer = "spatial_attention"
    s = convolution(z, given[f"{layer}.0.weight"], given[f"{layer}.0.bias"], groups)
    s = np.maximum(batch_norm(s, given, f"{layer}.1", eps), 0)
    s = convolution(s, given[f"{layer}.3.weight"], given[f"{layer}.3.bias"], groups)
    s = sigmoid(batch_norm(s, given, f"{layer}.4", eps))
    if variant == "yolo-grouped":
        channels = x.shape[1]
        shuffled = np.empty_like(s)
        for i, j in np.ndindex(4, channels // 4):
            shuffled[:, j * 4 + i] = s[:, i * channels // 4 + j]
        s = shuffled
    return z * s


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
@pytest.mark.parametrize(("variant", "reduction"), [(VARIANTS[0], 4), (VARIANTS[1], 3), (VARIANTS[2], 2)])
def test_agrees_with_the_formula(variant: str, reduction: int, eps: float) -> None:
    for group in (True, False):
        module = randomised(GlobalAttention(12, variant, reduction, eps, group))
        x = np.random.default_rng(1).standard_normal((2, 12, 4, 7))
        expected = naive(x, state_of(module), variant, 2 if variant == "yolo-grouped" and group else 1, eps)
        np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_and_shapes(variant: str) -> None:
    groups = 4 if variant == "yolo-grouped" else 1
    expected: dict[str, tuple[int, ...]] = {
        "channel_attention.0.weight": (8, 32),
        "channel_attention.0.bias": (8,),
        "channel_attention.2.weight": (32, 8),
        "channel_attention.2.bias": (32,),
        "spatial_attention.0.weight": (8, 32 // groups, 7, 7),
        "spatial_attention.0.bias": (8,),
        "spatial_attention.3.weight": (32, 8 // groups, 7, 7),
        "spatial_attention.3.bias": (32,),
    }
    for layer, count in ((1, 8), (4, 32)):
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"spatial_attention.{layer}.{part}"] = (count,)
    assert shapes(GlobalAttention(32, variant)) == expected


@pytest.mark.parametrize(("variant", "low", "high"), [(VARIANTS[0], 0.02, 0.15), (VARIANTS[1], 0.2, 0.3)])
def test_trains_and_starts_small(variant: str, low: float, high: float) -> None:
    assert_trains(GlobalAttention(16, variant), 16)
    assert low < scale(GlobalAttention(64, variant), 64) < high


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity_setting_is_bit_exact(variant: str) -> None:
    module = GlobalAttention(16, variant).eval()
    nn.init.zeros_(module.channel_attention[2].weight)
    nn.init.constant_(module.channel_attention[2].bias, 20.0 if variant == "cv-attention" else 1.0)
    nn.init.zeros_(module.spatial_attention[4].weight)
    nn.init.constant_(module.spatial_attention[4].bias, 20.0)
    x = 20 * torch.randn(2, 16, 9, 5)
    assert torch.equal(module(x), x)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="variants listing"):
        GlobalAttention(16, "plain")
    with pytest.raises(ValueError, match="a reduction between 1 and 3"):
        GlobalAttention(3)
    with pytest.raises(ValueError, match="cannot form 4 groups"):
        GlobalAttention(24, "yolo-grouped")
    with pytest.raises(ValueError, match="cannot shuffle 18 channels in 4 groups"):
        GlobalAttention(18, "yolo-grouped", group=False)
