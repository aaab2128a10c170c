"""Polarized self-attention against its formulas, in the order of the published code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.polarized import VARIANTS, Polarized
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, layer_norm, pointwise, sigmoid, softmax


def channel_gate(x: Array, state: Mapping[str, Array], variant: str) -> Array:
    n, c, h, w = x.shape
    query, value = ("ch_wq", "ch_wv") if variant.startswith("e") else ("conv_q_right", "conv_v_right")
    a = softmax(pointwise(x, state, query).reshape(n, h * w), 1)
    context = np.einsum("ncm,nm->nc", pointwise(x, state, value).reshape(n, c // 2, h * w), a)[:, :, None, None]
    if variant.startswith("e"):
        z = layer_norm(pointwise(context, state, "ch_wz"), state["ln.weight"], state["ln.bias"], 1)
    elif variant == "s":
        z = layer_norm(pointwise(context, state, "conv_up.0"), state["conv_up.1.weight"], state["conv_up.1.bias"], 1)
        z = pointwise(np.maximum(z, 0), state, "conv_up.3")
    else:
        z = pointwise(context, state, "conv_up")
    return sigmoid(z)


def spatial_gate(x: Array, state: Mapping[str, Array], variant: str) -> Array:
    n, c, h, w = x.shape
    query, value = ("sp_wq", "sp_wv") if variant.startswith("e") else ("conv_q_left", "conv_v_left")
    q = pointwise(x, state, query).mean(axis=(2, 3))
    v = pointwise(x, state, value).reshape(n, c // 2, h * w)
    if variant.startswith("e"):
        q = softmax(q, 1)
    if variant == "s":
        v = softmax(v, 2)
    z = np.einsum("nc,ncm->nm", q, v)
    if variant == "p":
        z = softmax(z, 1)
    return sigmoid(z).reshape(n, 1, h, w)


@pytest.mark.parametrize("size", [(6, 6), (4, 9), (1, 1)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_formula(variant: str, size: tuple[int, int]) -> None:
    module = randomised(Polarized(16, variant), 1.5)
    state = state_of(module)
    x = 2 * np.random.default_rng(1).standard_normal((2, 16, *size))
    by_channel = x * channel_gate(x, state, variant)
    if variant.endswith("p"):
        y = by_channel + x * spatial_gate(x, state, variant)
    else:
        y = by_channel * spatial_gate(by_channel, state, variant)
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_untrained(variant: str) -> None:
    x = torch.randn(2, 64, 20, 20)
    ratio = float((Polarized(64, variant)(x).norm() / x.norm()).detach())
    assert abs(ratio - (1.0 if variant.endswith("p") else 0.25)) < 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_training(variant: str) -> None:
    assert_trains(Polarized(16, variant), 16, (9, 8))


@pytest.mark.parametrize(("channels", "variant"), [(7, "p"), (6, "s"), (0, "external-p")])
def test_channels_that_do_not_fit_are_refused(channels: int, variant: str) -> None:
    with pytest.raises(ValueError, match=f"{variant} needs an even number of channels"):
        Polarized(channels, variant)
    with pytest.raises(ValueError, match="has the variants p, s, external-p, external-s, not 'x'"):
        Polarized(16, "x")
