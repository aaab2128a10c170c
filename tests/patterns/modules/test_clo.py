"""CloAttention against its formula, one head and one query at a time."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.patterns.modules.clo import CloAttention
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, State, depthwise, pointwise, sigmoid, softmax


def attended(x: Array, given: State, heads: int, width: int, window: int) -> Array:
    rows, columns = x.shape[2] // window, x.shape[3] // window
    means = x[:, :, : rows * window, : columns * window].reshape(*x.shape[:2], rows, window, columns, window)
    q = pointwise(x, given, "global_q")
    k, v = np.split(pointwise(means.mean((3, 5)), given, "global_kv"), 2, axis=1)
    y = np.zeros_like(q)
    for image, head, row, column in np.ndindex(x.shape[0], heads, *x.shape[2:]):
        part = slice(head * width, (head + 1) * width)
        keys, values = k[image, part].reshape(width, -1), v[image, part].reshape(width, -1)
        y[image, part, row, column] = values @ softmax(q[image, part, row, column] @ keys / np.sqrt(width), 0)
    return y


@pytest.mark.parametrize(("window", "bias"), [(1, True), (2, False), (3, True)])
def test_agrees_with_the_formula(window: int, bias: bool) -> None:
    module = randomised(CloAttention(12, 4, 3, 3, window, bias))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 12, 4, 7))
    q, k, v = np.split(depthwise(pointwise(x, given, "qkvs.0"), given, "convs.0"), 3, axis=1)
    hidden = pointwise(q * k, given, "act_blocks.0.act_block.0")
    near = np.tanh(pointwise(hidden * sigmoid(hidden), given, "act_blocks.0.act_block.2") / np.sqrt(3)) * v
    y = pointwise(np.concatenate([near, attended(x, given, 1, 3, window)], 1), given, "proj")
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-11)


def test_training() -> None:
    assert_trains(CloAttention(8, 4, 2, window=2), 8)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
        CloAttention(8, 3)
    with pytest.raises(ValueError, match="local_heads between 0 and heads"):
        CloAttention(8, 4, 4)
