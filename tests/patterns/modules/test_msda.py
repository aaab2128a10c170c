"""MSDA against its formula, one head and one query at a time, and what it does not take."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.patterns.modules.msda import MultiDilateLocalAttention
from graphsurgery.userblocks import make_block
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import Array, pointwise, softmax


def attended(q: Array, k: Array, v: Array, dilation: int, kernel: int) -> Array:
    """[d, H, W] each, one head."""
    y, (height, width) = np.zeros_like(q), q.shape[1:]
    offsets = [dilation * (number - kernel // 2) for number in range(kernel)]
    for row, column in np.ndindex(height, width):
        keys, values = np.zeros((2, kernel**2, len(q)))
        for number, (down, right) in enumerate((down, right) for down in offsets for right in offsets):
            if 0 <= row + down < height and 0 <= column + right < width:
                keys[number], values[number] = (z[:, row + down, column + right] for z in (k, v))
        y[:, row, column] = softmax(keys @ q[:, row, column] / np.sqrt(len(q)), 0) @ values
    return y


@pytest.mark.parametrize(
    ("heads", "dilations", "kernel", "bias"), [(6, (1, 2, 3), 3, True), (4, (2, 3), 3, False), (4, (1, 3), 5, True)]
)
def test_agrees_with_the_formula(heads: int, dilations: tuple[int, ...], kernel: int, bias: bool) -> None:
    first, step = dilations[0], dilations[1] - dilations[0]
    module = randomised(MultiDilateLocalAttention(12, heads, len(dilations), first, step, kernel, bias))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 12, 5, 7))
    q, k, v = np.split(pointwise(x, given, "qkv"), 3, axis=1)
    a = np.zeros_like(q)
    for image, head in np.ndindex(2, heads):
        part = slice(head * 12 // heads, (head + 1) * 12 // heads)
        dilation = dilations[head * len(dilations) // heads]
        a[image, part] = attended(q[image, part], k[image, part], v[image, part], dilation, kernel)
    np.testing.assert_allclose(run(module, x), pointwise(a, given, "proj"), rtol=1e-10, atol=1e-11)


def test_keys() -> None:
    assert shapes(MultiDilateLocalAttention(8, 8, 4)) == {
        "qkv.weight": (24, 8, 1, 1),
        "proj.weight": (8, 8),
        "proj.bias": (8,),
    }


def test_training() -> None:
    assert_trains(MultiDilateLocalAttention(12, 4, 2, qkv_bias=True), 12)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="scales that divide its heads"):
        MultiDilateLocalAttention(8, 8, 3)
    with pytest.raises(BlockError, match="3 do not divide 8"):
        make_block("msda", {"scales": 3}).check(FeatureMap(64, 20, 20))


def test_neighbours_that_are_all_outside_are_named() -> None:
    assert make_block("msda", {}).warnings(FeatureMap(64, 5, 5)) == []
    assert "4 away" in make_block("msda", {}).warnings(FeatureMap(64, 4, 20))[0]
