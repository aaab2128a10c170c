"""CGA and its block against their formulas, one window and one query at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.cga import EfficientViTBlock, LocalWindowAttention
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, depthwise, pointwise, softmax

EPS = 0.1


def conv_bn(x: Array, given: State, layer: str) -> Array:
    return batch_norm(pointwise(x, given, f"{layer}.c"), given, f"{layer}.bn", EPS)


def near(x: Array, given: State, layer: str) -> Array:
    return batch_norm(depthwise(x, given, f"{layer}.c"), given, f"{layer}.bn", EPS)


def window_attended(x: Array, given: State, heads: int, width: int, prefix: str) -> Array:
    """Of one window [N, C, w, w]."""
    side = x.shape[2]
    found: list[Array] = []
    for head, part in enumerate(np.split(x, heads, axis=1)):
        qkv = conv_bn(part + found[-1] if found else part, given, f"{prefix}qkvs.{head}")
        q, k, v = np.split(qkv, [width, 2 * width], axis=1)
        q, y = near(q, given, f"{prefix}dws.{head}"), np.zeros_like(v)
        for image, row, column in np.ndindex(x.shape[0], side, side):
            logits = np.zeros((side, side))
            for down, right in np.ndindex(side, side):
                bias = given[f"{prefix}attention_biases"][head][abs(down - row) * side + abs(right - column)]
                logits[down, right] = q[image, :, row, column] @ k[image, :, down, right] / np.sqrt(width) + bias
            weights = softmax(logits.reshape(-1), 0)
            y[image, :, row, column] = v[image].reshape(v.shape[1], -1) @ weights
        found.append(y)
    return conv_bn(np.maximum(np.concatenate(found, 1), 0), given, f"{prefix}proj.1")


def unit(x: Array, given: State, heads: int, width: int, side: int, prefix: str = "attn.") -> Array:
    height, wide = x.shape[2:]
    z = np.pad(x, ((0, 0), (0, 0), (0, -height % side), (0, -wide % side)))
    y = np.zeros_like(z)
    for row, column in np.ndindex(z.shape[2] // side, z.shape[3] // side):
        place = (..., slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
        y[place] = window_attended(z[place], given, heads, width, prefix)
    return y[:, :, :height, :wide]


@pytest.mark.parametrize(("size", "window"), [((6, 4), 3), ((4, 7), 7), ((2, 2), 2)])
def test_the_unit(size: tuple[int, int], window: int) -> None:
    module = randomised(LocalWindowAttention(6, size, 2, 3, window, 3, EPS))
    x = np.random.default_rng(1).standard_normal((2, 6, *size))
    expected = unit(x, state_of(module), 2, 3, min(window, *size))
    np.testing.assert_allclose(run(module, x), expected, rtol=1e-10, atol=1e-11)


def test_the_block() -> None:
    module = randomised(EfficientViTBlock(6, (4, 5), 2, 3, 3, 3, 5, EPS))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 6, 4, 5))

    def fed(z: Array, layer: str) -> Array:
        return z + conv_bn(np.maximum(conv_bn(z, given, f"{layer}.pw1"), 0), given, f"{layer}.pw2")

    z = fed(x + near(x, given, "dw0.m"), "ffn0.m")
    z = z + unit(z, given, 2, 3, 3, "mixer.m.attn.")
    y = fed(z + near(z, given, "dw1.m"), "ffn1.m")
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-11)


def test_it_starts_as_an_identity() -> None:
    x = 20 * torch.randn(2, 8, 9, 8)
    assert torch.equal(EfficientViTBlock(8, (9, 8)).eval()(x), x)
    assert not LocalWindowAttention(8, (9, 8)).eval()(x).any()


def test_training() -> None:
    module = EfficientViTBlock(8, (8, 9), window=4)
    for name, parameter in module.named_parameters():
        if name.endswith("bn.weight"):
            torch.nn.init.ones_(parameter)
    assert_trains(module, 8)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
        LocalWindowAttention(8, (9, 8), heads=3)
    with pytest.raises(ValueError, match="odd kernel"):
        LocalWindowAttention(8, (9, 8), kernel=4)
    with pytest.raises(ValueError, match="maps of 9x8, got 8x9"):
        LocalWindowAttention(8, (9, 8))(torch.zeros(1, 8, 8, 9))
