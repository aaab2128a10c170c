"""PSABlock and ABlock against their formulas, one head and one query at a time. Ultralytics' own modules: see the
template's tests.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.psablock import ABlock, PSABlock
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, depthwise, pointwise, sigmoid, softmax


def layer(x: Array, state: Mapping[str, Array], name: str, eps: float) -> Array:
    y = depthwise(x, state, f"{name}.conv") if name == "attn.pe" else pointwise(x, state, f"{name}.conv")
    if f"{name}.bn.weight" not in state:
        return y
    scale, bias, mean, variance = (
        state[f"{name}.bn.{part}"].reshape(1, -1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (y - mean) / np.sqrt(variance + eps) * scale + bias


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("heads", "ratio", "shortcut"), [(1, 0.5, True), (2, 0.5, True), (4, 0.34, False)])
def test_agrees_with_the_formula(heads: int, ratio: float, shortcut: bool, fused: bool) -> None:
    channels, eps, size = 12, 0.1, (4, 5)
    module = randomised(PSABlock(channels, heads, ratio, shortcut, eps, fused), 1.0)
    for key, values in module.named_buffers():
        if values.is_floating_point():
            torch.nn.init.uniform_(values, 0.3, 2.0) if key.endswith("var") else torch.nn.init.normal_(values)
    state = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, channels, *size))
    value = channels // heads
    key_dim = int(value * ratio)
    qkv = layer(x, state, "attn.qkv", eps).reshape(2, heads, 2 * key_dim + value, -1)
    o, v_map = np.zeros((2, heads, value, 20)), np.zeros((2, heads, value, 20))
    for image, head in np.ndindex(2, heads):
        q, k, v = np.split(qkv[image, head], [key_dim, 2 * key_dim])
        v_map[image, head] = v
        for query in range(20):
            o[image, head, :, query] = v @ softmax(q[:, query] @ k / np.sqrt(key_dim), 0)
    a = o.reshape(x.shape) + layer(v_map.reshape(x.shape), state, "attn.pe", eps)
    z = layer(a, state, "attn.proj", eps) + (x if shortcut else 0)
    hidden = layer(z, state, "ffn.0", eps)
    y = layer(hidden * sigmoid(hidden), state, "ffn.1", eps) + (z if shortcut else 0)
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("heads", "area"), [(1, 1), (2, 4), (4, 10)])
def test_a_block_with_areas_agrees_with_the_formula(heads: int, area: int) -> None:
    channels, eps, positions = 12, 0.1, 20
    module = randomised(ABlock(channels, heads, 5, area, 5, eps), 1.0)
    state = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, channels, 4, 5))
    width = channels // heads
    qkv = layer(x, state, "attn.qkv", eps).reshape(2, heads, 3 * width, positions)
    o, v_map = np.zeros((2, heads, width, positions)), np.zeros((2, heads, width, positions))
    for image, head, query in np.ndindex(2, heads, positions):
        q, k, v = np.split(qkv[image, head], 3)
        first = query // (positions // area) * (positions // area)
        within = slice(first, first + positions // area)
        o[image, head, :, query] = v[:, within] @ softmax(q[:, query] @ k[:, within] / np.sqrt(width), 0)
        v_map[image, head] = v
    a = o.reshape(x.shape) + layer(v_map.reshape(x.shape), state, "attn.pe", eps)
    z = x + layer(a, state, "attn.proj", eps)
    hidden = layer(z, state, "mlp.0", eps)
    y = z + layer(hidden * sigmoid(hidden), state, "mlp.1", eps)
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-11)


def test_areas_that_do_not_divide_the_map_are_refused() -> None:
    with pytest.raises(ValueError, match="3 areas do not divide the positions of a map of 4x5"):
        ABlock(8, 2, 8, area=3)(torch.zeros(1, 8, 4, 5))
    with pytest.raises(ValueError, match="odd pe_kernel"):
        ABlock(8, 2, 8, pe_kernel=4)


def test_identity() -> None:
    module = PSABlock(8, 2).eval()
    for norm in (module.attn.proj.bn, module.ffn[1].bn):
        torch.nn.init.zeros_(norm.weight)
    x = 20 * torch.randn(2, 8, 9, 8)
    assert torch.equal(module(x), x)


@pytest.mark.parametrize("fused", [False, True])
def test_training(fused: bool) -> None:
    assert_trains(PSABlock(8, 2, fused=fused), 8, (9, 8))
    assert_trains(ABlock(8, 2, 16, 4, fused=fused), 8, (9, 8))


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide its channels, got 5 for 12"):
        PSABlock(12, 5)
    with pytest.raises(ValueError, match="keys of at least one channel"):
        PSABlock(12, 12)
