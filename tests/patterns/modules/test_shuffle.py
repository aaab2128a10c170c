"""Shuffle Attention against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.shuffle import ShuffleAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, sigmoid


def naive(x: Array, given: State) -> Array:
    """Channel after channel."""
    half, channels, y = given["gn.weight"].size, x.shape[1], np.empty_like(x)
    cw, cb, sw, sb = (given[key].reshape(-1) for key in ("cweight", "cbias", "sweight", "sbias"))
    for n, c in np.ndindex(x.shape[:2]):
        k, plane = c % half, x[n, c]
        logits = cw[k] * plane.mean() + cb[k]
        if c // half % 2:
            normal = (plane - plane.mean()) / np.sqrt(plane.var() + 1e-5)
            logits = sw[k] * (normal * given["gn.weight"][k] + given["gn.bias"][k]) + sb[k]
        i, j = divmod(c, channels // 2)
        y[n, 2 * j + i] = plane * sigmoid(logits)
    return y


@pytest.mark.parametrize(("channels", "groups"), [(12, 2), (18, 3), (8, 4), (10, 1)])
def test_agrees_with_the_formula(channels: int, groups: int) -> None:
    module = randomised(ShuffleAttention(channels, groups))
    x = np.random.default_rng(1).standard_normal((3, channels, 4, 7)) * 2
    expected = naive(x, state_of(module))
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_keys_and_shapes() -> None:
    affine = dict.fromkeys(("cweight", "cbias", "sweight", "sbias"), (1, 4, 1, 1))
    assert shapes(ShuffleAttention(64, 8)) == affine | {"gn.weight": (4,), "gn.bias": (4,)}


def test_trains_and_starts_at_sigmoid_1() -> None:
    assert_trains(randomised(ShuffleAttention(12, 2)), 12)
    assert scale(ShuffleAttention(128), 128) == pytest.approx(0.7311, abs=1e-3)


def test_gates_of_1_still_reorder() -> None:
    module = ShuffleAttention(8, 2).eval()
    torch.nn.init.constant_(module.cbias, 20.0)
    torch.nn.init.constant_(module.sbias, 20.0)
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(module(x), x[:, [0, 4, 1, 5, 2, 6, 3, 7]])


def test_channels_that_do_not_make_the_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="channels in multiples of 128, got 64"):
        ShuffleAttention(64)
