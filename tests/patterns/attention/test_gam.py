"""GAM: linear layers as 1x1 convolutions, grouping and shuffle, and how large it is."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights

PLAIN = ["Conv", "Relu", "Conv", "Mul", "Conv", "Relu", "Conv", "Sigmoid", "Mul"]
SIGMOID = [*PLAIN[:3], "Sigmoid", *PLAIN[3:]]


class Fork(nn.Module):
    """The grouped form, written with views and permutations as YOLO forks run it."""

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        hidden = channels // rate
        self.channel_attention = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial_attention = nn.Sequential(
            nn.Conv2d(channels, hidden, 7, padding=3, groups=rate),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 7, padding=3, groups=rate),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        tokens = self.channel_attention(x.flatten(2).transpose(1, 2))
        x = x * tokens.transpose(1, 2).reshape(x.shape)
        gate = torch.sigmoid(self.spatial_attention(x))
        order = torch.arange(channels).reshape(4, channels // 4).t().reshape(-1)
        return x * gate[:, order]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    for height, batch in ((13, 1), (None, None)):
        feature = feature_map(16, height, batch=batch)
        assert build("gam", feature=feature, opset=opset).operators == PLAIN
        assert build("gam[cv-attention]", feature=feature, opset=opset).operators == SIGMOID
    shuffled = build("gam[yolo-grouped]", feature=feature_map(16), opset=opset).operators
    assert shuffled == [*PLAIN[:-1], "Reshape", "Transpose", "Reshape", "Mul"]
    dynamic = build("gam[yolo-grouped]", feature=feature_map(16, None), opset=opset).operators
    assert dynamic == [*PLAIN[:-1], "Gather", "Mul"]


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_a_grouped_fork(target: str) -> None:
    module = Fork(32, 4)
    for layer in (module.spatial_attention[1], module.spatial_attention[4]):
        nn.init.uniform_(layer.running_var, 0.5, 2)
        nn.init.uniform_(layer.weight, -2, 2)
    assert_is(inserted("gam[yolo-grouped]", {}, module.state_dict(), 32, target=target), module)


def test_the_reduction_is_read_off_the_weights() -> None:
    feature = feature_map(24)
    given = random_weights(make_block("gam", {"reduction": 6}), feature)
    block, _ = fit(make_block("gam"), feature, given)
    assert block.values["reduction"] == 6


def test_the_size_is_warned_of() -> None:
    """25.7 million at 1024 channels: more than most detectors have in all."""
    feature = feature_map(1024)
    (warning,) = make_block("gam").warnings(feature)
    assert warning == "gam has 26.2 million parameters at 1024 channels; gam[yolo-grouped] has a quarter of it"
    convolutions = [s for key, s in make_block("gam").parameters(feature).items() if len(s) == 4]
    assert sum(prod(shape) for shape in convolutions) == 25_690_112
    assert make_block("gam").warnings(feature_map(256)) == []
    assert make_block("gam[yolo-grouped]").warnings(feature) == []


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BlockError, match=r"3 channels; a reduction of 4 leaves no hidden channel"):
        build("gam", feature=feature_map(3))
    with pytest.raises(BlockError, match=r"gam\[yolo-grouped\] splits .* needs a multiple of 16 channels"):
        build("gam[yolo-grouped]", feature=feature_map(24))


@pytest.mark.parametrize("spelled", ["gam", "gam[cv-attention]", "gam[yolo-grouped]"])
def test_float16_at_large_magnitudes(spelled: str) -> None:
    """With torch's own weights nothing leaves float16 at 200, although x is multiplied with a function of x."""
    feature = feature_map(64, 20, 20, "float16")
    block = make_block(spelled)
    built = build(spelled, feature=feature, weights=block.initial(feature, np.random.default_rng(2)))
    x = np.clip(np.random.default_rng(5).standard_normal((1, 64, 20, 20)) * 70, -200, 200).astype(np.float16)
    y = Runtime(built.model)(x).astype(np.float64)
    assert np.isfinite(y).all()
    expected = built.expected(x)
    assert np.abs(y - expected).max() < 0.02 * np.abs(expected).max()
