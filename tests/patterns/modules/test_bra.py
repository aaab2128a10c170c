"""BRA against its formula, one window and one query at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.bra import BRA
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import Array, depthwise, pointwise, softmax

Window = tuple[slice, slice]


def cut(size: tuple[int, int], side: tuple[int, int]) -> list[Window]:
    """The windows of a map, row by row; the last ones may reach beyond it."""
    (height, width), (tall, wide) = size, side
    return [
        (slice(row, row + tall), slice(column, column + wide))
        for row in range(0, height, tall)
        for column in range(0, width, wide)
    ]


def means(x: Array, windows: list[Window]) -> Array:
    """Of one image over each window, what is beyond the map left out: [windows, C]."""
    return np.stack([x[(slice(None), *window)].mean((1, 2)) for window in windows])


def padded(x: Array, down: int, right: int) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (0, down), (0, right)))


def attended(q: Array, k: Array, v: Array, windows: list[Window], read: Array) -> Array:
    """One image, one head: [d, H, W]. ``read``: the windows that each window reads."""
    y = np.zeros_like(v)
    for window, others in zip(windows, read, strict=True):
        keys, values = (
            np.concatenate([x[(slice(None), *windows[other])].reshape(len(x), -1) for other in others], 1)
            for x in (k, v)
        )
        for row in range(*window[0].indices(q.shape[1])):
            for column in range(*window[1].indices(q.shape[2])):
                y[:, row, column] = values @ softmax(q[:, row, column] @ keys, 0)
    return y


def formula(
    x: Array, module: BRA, side: tuple[int, int], rest: tuple[int, int], first: str, last: str, *, before: bool
) -> Array:
    """``side``: of a window; ``rest``: how much is padded below and to the right, before the first layer or after."""
    given, (height, width) = state_of(module), x.shape[2:]
    x = padded(x, *rest) if before else x
    q, k, v = np.split(pointwise(x, given, first), [module.qk_dim, 2 * module.qk_dim], axis=1)
    windows = cut((height + rest[0], width + rest[1]), side)
    routes = [means(key, windows) @ means(query, windows).T for query, key in zip(q, k, strict=True)]
    near = depthwise(v, given, "lepe")[:, :, :height, :width]
    if not before:
        q, k, v = (padded(each, *rest) for each in (q, k, v))
    o = np.zeros_like(v)
    for image, route in enumerate(routes):
        read = np.argsort(-route.T, axis=1)[:, : module.topk]
        parts = (np.split(each[image], module.heads) for each in (q / math.sqrt(module.qk_dim), k, v))
        o[image] = np.concatenate([attended(*head, windows, read) for head in zip(*parts, strict=True)])
    return pointwise(o[:, :, :height, :width] + near, given, last)


@pytest.mark.parametrize(
    ("size", "side", "rest"), [((4, 6), (2, 2), (2, 0)), ((6, 3), (2, 1), (0, 0)), ((2, 7), (1, 3), (1, 2))]
)
def test_official(size: tuple[int, int], side: tuple[int, int], rest: tuple[int, int]) -> None:
    module = randomised(BRA(6, heads=2, windows=3, topk=2, kernel=5, qk_dim=4))
    x = np.random.default_rng(1).standard_normal((2, 6, *size))
    expected = formula(x, module, side, rest, "qkv.qkv", "wo", before=True)
    np.testing.assert_allclose(run(module, x), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("size", "side", "rest"), [((4, 6), (1, 2), (0, 0)), ((7, 8), (2, 2), (1, 0)), ((11, 8), (3, 2), (1, 0))]
)
def test_nchw(size: tuple[int, int], side: tuple[int, int], rest: tuple[int, int]) -> None:
    module = randomised(BRA(6, "nchw", heads=3, windows=3, topk=4))
    x = np.random.default_rng(1).standard_normal((2, 6, *size))
    expected = formula(x, module, side, rest, "qkv_linear", "output_linear", before=False)
    np.testing.assert_allclose(run(module, x), expected, rtol=1e-10, atol=1e-11)


def test_the_keys_of_the_authors() -> None:
    assert shapes(BRA(16)) == {
        "lepe.weight": (16, 1, 3, 3),
        "lepe.bias": (16,),
        "qkv.qkv.weight": (48, 16),
        "qkv.qkv.bias": (48,),
        "wo.weight": (16, 16),
        "wo.bias": (16,),
    }
    assert shapes(BRA(16, "nchw")) == {
        "lepe.weight": (16, 1, 3, 3),
        "lepe.bias": (16,),
        "qkv_linear.weight": (48, 16, 1, 1),
        "qkv_linear.bias": (48,),
        "output_linear.weight": (16, 16, 1, 1),
        "output_linear.bias": (16,),
    }


@pytest.mark.parametrize("variant", ["official", "nchw"])
def test_training(variant: str) -> None:
    assert_trains(BRA(8, variant, windows=4), 8)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
        BRA(8, heads=3)
    with pytest.raises(ValueError, match="got 7, 4, 4 and None"):
        BRA(8, kernel=4)
    with pytest.raises(ValueError, match="got 7, 4, 3 and 16"):
        BRA(8, "nchw", qk_dim=16)
    with pytest.raises(ValueError, match="cannot read 5 windows of 4"):
        BRA(8, windows=2, topk=5)(torch.zeros(1, 8, 4, 4))
    with pytest.raises(ValueError, match="cannot cut a 6x9 map into 7"):
        BRA(8, "nchw")(torch.zeros(1, 8, 6, 9))
