"""EMA: groups without folding them into the batch, the constant softmax, and what else is called EMA."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import Array, build, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_close


def published(x: Array, given: dict[str, Array], groups: int) -> Array:
    """The formula group by group, both softmaxes computed, float64."""
    y = np.empty_like(x)
    k = x.shape[1] // groups
    sigmoid = torch.sigmoid
    p = {key: torch.from_numpy(values.astype(np.float64)) for key, values in given.items()}
    for n, g in np.ndindex(x.shape[0], groups):
        part = torch.from_numpy(x[n, g * k : (g + 1) * k])
        matrix = p["conv1x1.weight"][:, :, 0, 0]
        rows = sigmoid(matrix @ part.mean(2) + p["conv1x1.bias"][:, None])[:, :, None]
        columns = sigmoid(matrix @ part.mean(1) + p["conv1x1.bias"][:, None])[:, None, :]
        gated = part * rows * columns
        mean, var = gated.mean((1, 2), keepdim=True), gated.var((1, 2), unbiased=False, keepdim=True)
        gamma, beta = p["gn.weight"][:, None, None], p["gn.bias"][:, None, None]
        x1 = (gated - mean) / torch.sqrt(var + 1e-5) * gamma + beta
        x2 = torch.conv2d(part[None], p["conv3x3.weight"], p["conv3x3.bias"], padding=1)[0]
        p1, p2 = (torch.softmax(z.mean((1, 2)), 0)[:, None, None] for z in (x1, x2))
        y[n, g * k : (g + 1) * k] = (part * sigmoid((p1 * x2 + p2 * x1).sum(0))).numpy()
    return y


@pytest.mark.parametrize(("channels", "factor"), [(32, 32), (64, 32), (24, 8), (64, 8), (5, 1)])
@pytest.mark.parametrize(("height", "width"), [(9, 14), (1, 6), (7, 1), (2, 2)])
def test_the_published_formula(channels: int, factor: int, height: int, width: int) -> None:
    feature = feature_map(channels, height, width, batch=2)
    given = random_weights(make_block("ema", {"factor": factor}), feature)
    x = np.random.default_rng(1).standard_normal((2, channels, height, width))
    expected = published(x, given, factor)
    for target in ("tensorrt", "onnxruntime"):
        built = build("ema", {"factor": factor}, feature, weights=given, target=target)
        np.testing.assert_allclose(built.expected(x), expected, rtol=1e-9, atol=1e-12)
        x32 = x.astype(np.float32)
        assert_close(Runtime(built.model)(x32), expected, x32, "float32", factor=4)


def test_one_softmax_and_no_convolution_from_all_to_all_channels() -> None:
    """The other softmax is of the shift of the normalisation, a constant; the 3x3 kernels give a channel a group."""
    built = build("ema", {"factor": 4}, feature_map(24))
    assert built.operators.count("Softmax") == 1
    constants = built.constants
    kernels = [list(constants[node.input[1]].dims) for node in built.graph.node if node.op_type == "Conv"]
    # the means of the strip, the two gates, the map
    assert sorted(kernels) == sorted([[24, 6, 3, 3], [24, 6, 1, 1], [24, 6, 1, 1], [4, 6, 3, 3]])
    assert "Shape" not in built.operators


def test_no_shape_is_computed_at_a_dynamic_site_either() -> None:
    built = build("ema", {"factor": 4}, feature_map(24, None, None, batch=None))
    assert "Shape" not in built.operators
    run = Runtime(built.model)
    for shape in ((1, 24, 20, 20), (3, 24, 5, 33), (2, 24, 1, 1)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        assert_close(run(x), built.expected(x), x, "float32", str(shape), factor=4)


def test_the_factor_is_read_off_the_weights() -> None:
    feature = feature_map(64)
    given = random_weights(make_block("ema", {"factor": 8}), feature)
    block, _ = fit(make_block("ema"), feature, given)
    assert block.parameters(feature)["conv1x1.weight"] == (8, 8, 1, 1)
    with pytest.raises(WeightsError, match="has 60 channels, which groups of 8 channels does not divide"):
        fit(make_block("ema"), feature_map(60), given)


@pytest.mark.parametrize(("channels", "factor"), [(48, 32), (16, 32), (20, 8)])
def test_channels_that_do_not_make_the_groups_are_refused(channels: int, factor: int) -> None:
    with pytest.raises(BlockError, match=f"/model.8 has {channels} channels, which a factor of {factor} does not"):
        build("ema", {"factor": factor}, feature_map(channels))


@pytest.mark.parametrize("name", ["decay", "momentum", "tau", "updates"])
def test_a_running_average_is_told_apart_by_its_settings(name: str) -> None:
    with pytest.raises(BlockError, match="exponential moving average of a training run's weights is no block"):
        make_block("ema", {name: 0.9999})


def test_a_running_average_is_told_apart_by_its_weights() -> None:
    state = {"ema.model.0.conv.weight": np.zeros((4, 3, 3, 3)), "updates": np.array([7])}
    with pytest.raises(WeightsError, match="exponential moving average"):
        fit(make_block("ema"), feature_map(64), state)


def test_groups_of_one_channel_are_warned_of() -> None:
    assert "the constant 1" in make_block("ema").warnings(feature_map(32))[0]
    assert make_block("ema").warnings(feature_map(64)) == []


@pytest.mark.parametrize("magnitude", [50.0, 200.0])
def test_float16_at_large_magnitudes(magnitude: float) -> None:
    feature = feature_map(32, 20, 20, "float16")
    built = build("ema", {"factor": 8}, feature)
    x = (np.random.default_rng(5).standard_normal((1, 32, 20, 20)) * magnitude / 3).astype(np.float16)
    y = Runtime(built.model)(x).astype(np.float64)
    gate = y / np.where(x == 0, 1, x)
    assert np.isfinite(y).all()
    assert gate.std() > 0.05, "the gate has become a constant"
    assert_close(y, built.expected(x), x, "float16", factor=8, rounded=True)
