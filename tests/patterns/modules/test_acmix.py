"""ACmix against its formula, one head and one query at a time, and what it does not take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.patterns.modules.acmix import ACmix
from graphsurgery.userblocks import make_block
from tests.patterns.attention.fitting import fit
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import Array, State, convolution, pointwise, softmax


def reflected(place: int, side: int) -> int:
    return -place if place < 0 else 2 * (side - 1) - place if place >= side else place


def attended(q: Array, k: Array, v: Array, places: Array, kernel: int) -> Array:
    """[d, H, W] each, one head."""
    y, (height, width) = np.zeros_like(q), q.shape[1:]
    for row, column in np.ndindex(height, width):
        logits, values = [], []
        for down, right in np.ndindex(kernel, kernel):
            at = reflected(row + down - kernel // 2, height), reflected(column + right - kernel // 2, width)
            relative = k[(slice(None), *at)] + places[:, row, column] - places[(slice(None), *at)]
            logits.append(q[:, row, column] @ relative / np.sqrt(len(q)))
            values.append(v[(slice(None), *at)])
        y[:, row, column] = softmax(np.array(logits), 0) @ np.array(values)
    return y


def convolved(q: Array, k: Array, v: Array, given: State, heads: int) -> Array:
    """One channel of a head at a time: nine mixtures of it, and their convolution to as many channels as heads."""
    width, parts = q.shape[1] // heads, []
    for channel in range(width):
        one = np.stack([each[:, head * width + channel] for each in (q, k, v) for head in range(heads)], axis=1)
        mixed = np.einsum("op,nphw->nohw", given["fc.weight"][:, :, 0, 0], one)
        rows = slice(channel * heads, (channel + 1) * heads)
        parts.append(convolution(mixed, given["dep_conv.weight"][rows]))
    bias = given.get("dep_conv.bias", np.zeros(q.shape[1]))
    y: Array = np.concatenate(parts, axis=1) + bias.reshape(1, -1, 1, 1)
    return y


@pytest.mark.parametrize(("heads", "kernel", "bias"), [(2, 3, True), (3, 5, False), (1, 1, False)])
def test_agrees_with_the_formula(heads: int, kernel: int, bias: bool) -> None:
    module = randomised(ACmix(6, heads, kernel, bias), 1.0)
    given, x = state_of(module), np.random.default_rng(1).standard_normal((2, 6, 4, 7))
    q, k, v = (pointwise(x, given, f"conv{number}") for number in (1, 2, 3))
    rows, columns = np.linspace(-1, 1, 4), np.linspace(-1, 1, 7)
    coordinates = np.stack([np.tile(columns, (4, 1)), np.tile(rows[:, None], (1, 7))])
    places, a = pointwise(coordinates[None], given, "conv_p")[0], np.zeros_like(q)
    for image, head in np.ndindex(2, heads):
        part = slice(head * 6 // heads, (head + 1) * 6 // heads)
        a[image, part] = attended(q[image, part], k[image, part], v[image, part], places, kernel)
    expected = given["rate1"] * a + given["rate2"] * convolved(q, k, v, given, heads)
    np.testing.assert_allclose(run(module, x), expected, rtol=1e-10, atol=1e-11)


def test_it_begins_with_shifts_and_halves() -> None:
    module = ACmix(8, 2, conv_bias=True)
    x = torch.zeros(1, 36, 5, 5)
    x[0, 4] = 1.0  # of the nine maps of the first channel, the one that is not shifted
    assert torch.equal(module.dep_conv(x)[0, :2], torch.ones(2, 5, 5))
    assert (module.rate1.item(), module.rate2.item()) == (0.5, 0.5)
    own = make_block("acmix", {"conv_bias": True}).initial(FeatureMap(8, 9, 9), np.random.default_rng(0))
    theirs = state_of(ACmix(8, 4, conv_bias=True))
    for key in ("dep_conv.weight", "dep_conv.bias", "rate1", "rate2"):
        np.testing.assert_array_equal(own[key], theirs[key])


def test_the_keys_of_the_authors_and_of_ports() -> None:
    layers = {f"{name}.{part}" for name in ("conv1", "conv2", "conv3", "conv_p") for part in ("weight", "bias")}
    found = shapes(ACmix(16))
    assert set(found) == layers | {"fc.weight", "dep_conv.weight", "rate1", "rate2"}
    assert (found["fc.weight"], found["conv_p.weight"]) == ((9, 12, 1, 1), (4, 2, 1, 1))
    assert found["dep_conv.weight"] == (16, 9, 3, 3)
    for bias in (False, True):
        block, _ = fit(make_block("acmix"), FeatureMap(16, 9, 9), state_of(ACmix(16, 2, conv_bias=bias)))
        assert (block.values["heads"], block.values["conv_bias"]) == (2, bias)


def test_training() -> None:
    assert_trains(ACmix(8, 2, conv_bias=True), 8)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
        ACmix(8, 3)
    with pytest.raises(ValueError, match="an odd kernel, got 4"):
        ACmix(8, 2, 4)
    with pytest.raises(ValueError, match="a map of 3x9 is too small"):
        ACmix(8, 2)(torch.zeros(1, 8, 3, 9))
    with pytest.raises(BlockError, match="set kernel to at most 5"):
        make_block("acmix").check(FeatureMap(64, 3, 20))
    with pytest.raises(BlockError, match="codes the position on the map"):
        make_block("acmix").check(FeatureMap(64, None, 20))
