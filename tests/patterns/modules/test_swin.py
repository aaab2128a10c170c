"""Swin against its formula, position by position. transformers, timm and torchvision: see the template's tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.swin import SwinBlock
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import gelu, layer_norm, softmax


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("size", "window"), [((4, 6), 2), ((5, 7), 3), ((3, 8), 4)])
def test_agrees_with_the_formula(size: tuple[int, int], window: int, shifted: bool) -> None:
    """Each position attends to the places of its window; to those from the other end of the map by exp(-100)."""
    channels, heads = 4, 2
    module = randomised(SwinBlock(channels, size, heads, window, shifted, 6), 1.0)
    state = state_of(module)
    x = np.random.default_rng(1).standard_normal((1, channels, *size))
    window, shift = (min(size), 0) if min(size) <= window else (window, window // 2 if shifted else 0)
    height, width = (-(-side // window) * window for side in size)
    t = np.zeros((height, width, channels))
    t[: size[0], : size[1]] = layer_norm(x[0].transpose(1, 2, 0), state["norm1.weight"], state["norm1.bias"], 2)
    q, k, v = np.split(t @ state["attn.qkv.weight"].T + state["attn.qkv.bias"], 3, axis=2)
    table, d, z = state["attn.relative_position_bias_table"], channels // heads, x[0].transpose(1, 2, 0).copy()

    def region(rolled: int, side: int) -> int:
        """0, 1 or 2: inside of the whole windows, the end of the map, or what came round from its beginning."""
        return 0 if rolled < side - window else 1 if rolled < side - shift else 2

    for y, column in np.ndindex(*size):
        ry, rx = (y - shift) % height, (column - shift) % width  # where the position lies on the rolled map
        o = np.zeros(channels)
        for head in range(heads):
            part, logits, values = slice(head * d, (head + 1) * d), [], []
            for i, j in np.ndindex(window, window):
                ky, kx = ry // window * window + i, rx // window * window + j
                source = (ky + shift) % height, (kx + shift) % width
                offset = (ry % window - i + window - 1) * (2 * window - 1) + rx % window - j + window - 1
                same = region(ry, height) == region(ky, height) and region(rx, width) == region(kx, width)
                logit = q[y, column, part] @ k[(*source, part)] / np.sqrt(d) + table[offset, head]
                logits.append(logit if same or not shift else logit - 100)
                values.append(v[(*source, part)])
            o[part] = softmax(np.array(logits), 0) @ np.array(values)
        z[y, column] += o @ state["attn.proj.weight"].T + state["attn.proj.bias"]
    n = layer_norm(z, state["norm2.weight"], state["norm2.bias"], 2)
    hidden = gelu(n @ state["mlp.fc1.weight"].T + state["mlp.fc1.bias"])
    z = z + hidden @ state["mlp.fc2.weight"].T + state["mlp.fc2.bias"]
    np.testing.assert_allclose(run(module, x)[0], z.transpose(2, 0, 1), rtol=1e-9, atol=1e-11)


def test_identity() -> None:
    module = SwinBlock(8, (6, 8), 2, 4, shifted=True)
    for layer in (module.attn.proj, module.mlp.fc2):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    x = 20 * torch.randn(2, 8, 6, 8)
    assert torch.equal(module(x), x)


def test_buffers_that_follow_from_the_sizes_are_not_kept() -> None:
    keys = set(SwinBlock(8, (6, 8), 2, 4, shifted=True).state_dict())
    assert not any("index" in key or "mask" in key for key in keys)


def test_training_and_another_size() -> None:
    module = SwinBlock(8, (6, 8), 2, 4, shifted=True, qkv_bias=False)
    assert_trains(module, 8, (6, 8))
    with pytest.raises(ValueError, match="made for maps of 6x8, got 8x6"):
        module(torch.zeros(1, 8, 8, 6))


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
        SwinBlock(8, (6, 8), 3)
    with pytest.raises(ValueError, match="a window of at least 1, got 0"):
        SwinBlock(8, (6, 8), 2, 0)
