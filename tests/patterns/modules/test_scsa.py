"""SCSA against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.scsa import SpatialChannelSynergisticAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, convolution, group_norm, sigmoid

LAYERS = {"local_dwc": 3, "global_dwc_s": 5, "global_dwc_m": 7, "global_dwc_l": 9}


def naive(x: Array, given: State, heads: int, window: int) -> Array:
    batch, channels, height, width = x.shape
    quarter, d = channels // 4, channels // heads

    def strip(means: Array, norm: str) -> Array:
        parts = [
            convolution(
                means[:, q * quarter : (q + 1) * quarter, None], given[f"{layer}.weight"][:, :, None],
                given[f"{layer}.bias"], quarter,
            )
            for q, layer in enumerate(LAYERS)
        ]  # fmt: skip
        return sigmoid(group_norm(np.concatenate(parts, 1), 4, given, norm))[:, :, 0]

    z = x * strip(x.mean(3), "norm_h")[:, :, :, None] * strip(x.mean(2), "norm_w")[:, :, None]
    rows, columns = height // window, width // window
    pooled = z[:, :, : rows * window, : columns * window]
    pooled = pooled.reshape(batch, channels, rows, window, columns, window).mean((3, 5))
    normal = group_norm(pooled, 1, given, "norm").reshape(batch, channels, -1)

    def projected(layer: str) -> Array:
        bias = given.get(f"{layer}.bias", np.zeros(channels))
        return normal * given[f"{layer}.weight"].reshape(1, -1, 1) + bias.reshape(1, -1, 1)

    query, key, value = (projected(layer) for layer in "qkv")
    gate = np.empty((batch, channels))
    for n, h in np.ndindex(batch, heads):
        part = slice(h * d, (h + 1) * d)
        logits = query[n, part] @ key[n, part].T / np.sqrt(d)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        gate[n, part] = sigmoid((weights @ value[n, part]).mean(1))
    return z * gate[:, :, None, None]


@pytest.mark.parametrize(("heads", "window", "bias"), [(2, 3, False), (4, 7, False), (8, 2, True)])
def test_agrees_with_the_formula(heads: int, window: int, bias: bool) -> None:
    module = randomised(SpatialChannelSynergisticAttention(8, heads, window, bias))
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 15)) * 2
    expected = naive(x, state_of(module), heads, window)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


def test_keys_and_shapes() -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for layer, kernel in LAYERS.items():
        expected |= {f"{layer}.weight": (4, 1, kernel), f"{layer}.bias": (4,)}
    for layer in ("norm_h", "norm_w", "norm"):
        expected |= {f"{layer}.weight": (16,), f"{layer}.bias": (16,)}
    expected |= {f"{layer}.weight": (16, 1, 1, 1) for layer in "qkv"}
    assert shapes(SpatialChannelSynergisticAttention(16)) == expected


def test_trains_and_starts_low() -> None:
    assert_trains(SpatialChannelSynergisticAttention(8, 2, 3, qkv_bias=False), 8)
    assert 0.1 < scale(SpatialChannelSynergisticAttention(64), 64) < 0.25


def test_identity_setting_is_bit_exact() -> None:
    module = SpatialChannelSynergisticAttention(16).eval()
    for norm in (module.norm_h, module.norm_w, module.norm):
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, 20.0)
    nn.init.ones_(module.v.weight)
    x = 20 * torch.randn(2, 16, 9, 8)
    assert torch.equal(module(x), x)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4 and of 8, got 12"):
        SpatialChannelSynergisticAttention(12)
    with pytest.raises(ValueError, match="windows of at least 1"):
        SpatialChannelSynergisticAttention(16, window_size=0)
