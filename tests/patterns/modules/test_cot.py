"""CoT's two functions against their formulas, tap by tap."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.patterns.modules.cot import CoTAttention, CotLayer
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import (
    Array,
    State,
    batch_norm,
    convolution,
    group_norm,
    pointwise,
    sigmoid,
    softmax,
)


def normalised(x: Array, given: State, layer: str) -> Array:
    return batch_norm(pointwise(x, given, f"{layer}.0"), given, f"{layer}.1", 1e-5)


def keys(x: Array, given: State) -> Array:
    y = convolution(x, given["key_embed.0.weight"], groups=4)
    return np.maximum(batch_norm(y, given, "key_embed.1", 1e-5), 0)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_collections_agrees_with_the_formula(kernel: int) -> None:
    module = randomised(CoTAttention(8, kernel))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 8, 4, 5))
    k = keys(x, given)
    hidden = np.maximum(normalised(np.concatenate([k, x], 1), given, "attention_embed"), 0)
    taps = pointwise(hidden, given, "attention_embed.3").reshape(2, 8, kernel**2, 20)
    y = k + softmax(taps.mean(2), 2).reshape(x.shape) * normalised(x, given, "value_embed")
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_authors_agrees_with_the_formula(kernel: int) -> None:
    module = randomised(CotLayer(16, kernel))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 16, 4, 5))
    k = keys(x, given)
    hidden = np.maximum(normalised(np.concatenate([x, k], 1), given, "embed"), 0)
    weights = group_norm(pointwise(hidden, given, "embed.3"), 2, given, "embed.4")
    border = kernel // 2
    padded = np.pad(normalised(x, given, "conv1x1"), ((0, 0), (0, 0), (border, border), (border, border)))
    z = np.zeros_like(x)
    for channel, down, right in np.ndindex(16, kernel, kernel):
        tap = weights[:, channel % 2 * kernel**2 + down * kernel + right]
        z[:, channel] += tap * padded[:, channel, down : down + 4, right : right + 5]
    z = batch_norm(z, given, "bn", 1e-5)
    z = z * sigmoid(z)
    hidden = np.maximum(normalised((z + k).mean((2, 3), keepdims=True), given, "se"), 0)
    choice = softmax(pointwise(hidden, given, "se.3").reshape(2, 16, 2, 1), 2)
    y = choice[:, :, :1] * z + choice[:, :, 1:] * k
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-11)


def test_keys_of_the_two_differ() -> None:
    ours, authors = shapes(CoTAttention(16)), shapes(CotLayer(16))
    assert ours["attention_embed.3.weight"] == (144, 8, 1, 1)
    assert authors["embed.3.weight"] == (18, 8, 1, 1)
    assert authors["se.3.weight"] == (32, 32, 1, 1)
    assert {key.partition(".")[0] for key in set(ours) & set(authors)} == {"key_embed"}


def test_training() -> None:
    assert_trains(CoTAttention(8), 8)
    assert_trains(CotLayer(16), 16)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="channels that 4 divides and an odd kernel, got 6 and 3"):
        CoTAttention(6)
    with pytest.raises(ValueError, match="channels that 8 divides and an odd kernel, got 12 and 3"):
        CotLayer(12)
