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


def share(z: Array, axis: int) -> Array:
    e = np.exp(z - z.max(axis, keepdims=True))
    shares: Array = e / e.sum(axis, keepdims=True)
    return shares


def downsampled(z: Array, given: State, window: int, mode: str) -> Array:
    batch, channels, height, width = z.shape
    if window == -1:
        return z.mean((2, 3), keepdims=True)
    rows, columns = height // window, width // window
    parts = z[:, :, : rows * window, : columns * window].reshape(batch, channels, rows, window, columns, window)
    if mode == "recombination":
        flat = parts.transpose(0, 1, 3, 5, 2, 4).reshape(batch, channels * window**2, rows, columns)
        return np.einsum("oi,nihw->nohw", given["conv_d.weight"][:, :, 0, 0], flat)
    pooled: Array = parts.max((3, 5)) if mode == "max_pool" else parts.mean((3, 5))
    return pooled


def naive(
    x: Array, given: State, heads: int, window: int, mode: str = "avg_pool", gate_layer: str = "sigmoid"
) -> Array:
    batch, channels = x.shape[:2]
    soft = gate_layer == "softmax"
    quarter, d = channels // 4, channels // heads

    def strip(means: Array, norm: str) -> Array:
        parts = [
            convolution(
                means[:, q * quarter : (q + 1) * quarter, None], given[f"{layer}.weight"][:, :, None],
                given[f"{layer}.bias"], quarter,
            )
            for q, layer in enumerate(LAYERS)
        ]  # fmt: skip
        normal = group_norm(np.concatenate(parts, 1), 4, given, norm)
        return (share(normal, 3) if soft else sigmoid(normal))[:, :, 0]

    z = x * strip(x.mean(3), "norm_h")[:, :, :, None] * strip(x.mean(2), "norm_w")[:, :, None]
    pooled = downsampled(z, given, window, mode)
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
        gate[n, part] = (weights @ value[n, part]).mean(1)
    gate = share(gate, 1) if soft else sigmoid(gate)
    return z * gate[:, :, None, None]


@pytest.mark.parametrize(("heads", "window", "bias"), [(2, 3, False), (4, 7, False), (8, 2, True)])
def test_agrees_with_the_formula(heads: int, window: int, bias: bool) -> None:
    module = randomised(SpatialChannelSynergisticAttention(8, heads, window, bias))
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 15)) * 2
    expected = naive(x, state_of(module), heads, window)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("mode", "window", "gate_layer"),
    [
        ("max_pool", 3, "sigmoid"),
        ("recombination", 4, "sigmoid"),
        ("avg_pool", 3, "softmax"),
        ("recombination", 2, "softmax"),
        ("max_pool", -1, "sigmoid"),
    ],
)
def test_modes_agree_with_the_formula(mode: str, window: int, gate_layer: str) -> None:
    module = SpatialChannelSynergisticAttention(
        8, 2, window, group_kernel_sizes="1,3,7,5", down_sample_mode=mode, gate_layer=gate_layer
    )
    module = randomised(module)
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 12)) * 2
    expected = naive(x, state_of(module), 2, window, mode, gate_layer)
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
    with pytest.raises(ValueError, match="four odd kernels"):
        SpatialChannelSynergisticAttention(16, group_kernel_sizes="3,5,7,8")
    with pytest.raises(ValueError, match="modes avg_pool, max_pool, recombination"):
        SpatialChannelSynergisticAttention(16, down_sample_mode="mean")
    with pytest.raises(ValueError, match="windows of 7 do not divide a map of 14x9"):
        SpatialChannelSynergisticAttention(16, down_sample_mode="recombination")(torch.zeros(1, 16, 14, 9))
