"""Context Anchor Attention against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.caa import VARIANTS, ContextAnchorAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, convolution, sigmoid


def naive(x: Array, given: State, eps: float) -> Array:
    channels = x.shape[1]

    def pointwise(z: Array, layer: str) -> Array:
        z = convolution(z, given[f"{layer}.conv.weight"], given.get(f"{layer}.conv.bias"))
        if f"{layer}.bn.weight" in given:
            z = batch_norm(z, given, f"{layer}.bn", eps)
            z = z * sigmoid(z)
        return z

    # the padding counts: a mean over 49 values, zeros among them
    z = convolution(x, np.full((channels, 1, 7, 7), 1 / 49), None, channels)
    z = pointwise(z, "conv1")
    for layer in ("h_conv", "v_conv"):
        z = convolution(z, given[f"{layer}.conv.weight"], given[f"{layer}.conv.bias"], channels)
    return x * sigmoid(pointwise(z, "conv2"))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_agrees_with_the_formula(variant: str, eps: float) -> None:
    module = randomised(ContextAnchorAttention(3, variant, 5, 9, bn_eps=eps))
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 11)) * 2
    expected = naive(x, state_of(module), eps)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_and_shapes(variant: str) -> None:
    expected: dict[str, tuple[int, ...]] = {
        "conv1.conv.weight": (6, 6, 1, 1),
        "conv2.conv.weight": (6, 6, 1, 1),
        "h_conv.conv.weight": (6, 1, 1, 11),
        "h_conv.conv.bias": (6,),
        "v_conv.conv.weight": (6, 1, 11, 1),
        "v_conv.conv.bias": (6,),
    }
    parts = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"] if variant == "bn-silu" else ["conv.bias"]
    expected |= {f"{layer}.{part}": (6,) for layer in ("conv1", "conv2") for part in parts}
    assert shapes(ContextAnchorAttention(6, variant)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_trains_and_starts_at_a_half(variant: str) -> None:
    assert_trains(ContextAnchorAttention(6, variant), 6)
    assert 0.43 < scale(ContextAnchorAttention(64, variant), 64) < 0.57


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity_setting_is_bit_exact(variant: str) -> None:
    module = ContextAnchorAttention(8, variant).eval()
    last = module.conv2[1 if variant == "bn-silu" else 0]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 20.0)
    x = 20 * torch.randn(2, 8, 9, 5)
    assert torch.equal(module(x), x)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="variants pkinet, bn-silu"):
        ContextAnchorAttention(8, "plain")
    with pytest.raises(ValueError, match="odd kernels, not 4 and 11"):
        ContextAnchorAttention(8, h_kernel_size=4)
