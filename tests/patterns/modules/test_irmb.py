"""iRMB against its formula, one window and one query at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.irmb import IRMB
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, depthwise, pointwise, sigmoid, softmax


def attended(z: Array, given: State, heads: int, side: int) -> Array:
    """Of a padded map: a window has the places of one remainder by the number of windows along each side."""
    q, k = np.split(pointwise(z, given, "qk.conv"), 2, axis=1)
    v = np.maximum(pointwise(z, given, "v.conv"), 0)
    rows, columns = z.shape[2] // side, z.shape[3] // side
    key, value = q.shape[1] // heads, v.shape[1] // heads
    y = np.zeros_like(v)
    for image, head, row, column in np.ndindex(z.shape[0], heads, rows, columns):
        keys, values = slice(head * key, (head + 1) * key), slice(head * value, (head + 1) * value)
        down, right = slice(row, None, rows), slice(column, None, columns)
        queries = q[image, keys, down, right].reshape(key, -1)
        logits = queries.T @ k[image, keys, down, right].reshape(key, -1) / np.sqrt(key)
        found = v[image, values, down, right].reshape(value, -1) @ softmax(logits, 1).T
        y[image, values, down, right] = found.reshape(value, side, side)
    return y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(6, 9), (7, 4)])
def test_agrees_with_the_formula(size: tuple[int, int], bias: bool) -> None:
    heads, side, eps = 2, 3, 0.1
    module = randomised(IRMB(4, heads, 6, side, 5, bias, eps))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 4, *size))
    z = np.pad(batch_norm(x, given, "norm", eps), ((0, 0), (0, 0), (0, -size[0] % side), (0, -size[1] % side)))
    a = attended(z, given, heads, side)[:, :, : size[0], : size[1]]
    local = batch_norm(depthwise(a, given, "conv_local.conv"), given, "conv_local.norm", eps)
    y = x + pointwise(a + local * sigmoid(local), given, "proj.conv")
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-11)


def test_identity() -> None:
    module = IRMB(8, 2, 16).eval()
    torch.nn.init.zeros_(module.proj.conv.weight)
    x = 20 * torch.randn(2, 8, 9, 8)
    assert torch.equal(module(x), x)


def test_training() -> None:
    assert_trains(IRMB(8, 2, 16, window=4), 8)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide hidden"):
        IRMB(8, 2, 15)
    with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
        IRMB(8, 3, 15)
