"""Shuffle Attention: one affine for all channels, and the order that the channels leave in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights
from tests.patterns.attention.verdicts import dimensions

SHUFFLE = ["Reshape", "Transpose", "Reshape"]


class Port(nn.Module):
    """Channel by channel, in plain loops."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.width = channels // (2 * groups)
        for name in ("cweight", "cbias", "sweight", "sbias"):
            setattr(self, name, nn.Parameter(torch.randn(1, self.width, 1, 1)))
        self.gn = nn.Module()
        self.gn.weight, self.gn.bias = nn.Parameter(torch.randn(self.width)), nn.Parameter(torch.randn(self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        y = torch.empty_like(x)
        for c in range(channels):
            k, plane = c % self.width, x[:, c]
            mean = plane.mean((1, 2), keepdim=True)
            if c // self.width % 2 == 0:
                logit = self.cweight[0, k, 0, 0] * mean + self.cbias[0, k, 0, 0]
            else:
                normal = (plane - mean) / torch.sqrt(plane.var((1, 2), unbiased=False, keepdim=True) + 1e-5)
                normal = normal * self.gn.weight[k] + self.gn.bias[k]
                logit = self.sweight[0, k, 0, 0] * normal + self.sbias[0, k, 0, 0]
            i, j = divmod(c, channels // 2)
            y[:, 2 * j + i] = plane * torch.sigmoid(logit)
        return y


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize(("channels", "groups"), [(128, 64), (64, 8), (30, 3), (20, 1)])
def test_the_published_formula(channels: int, groups: int, target: str) -> None:
    """An odd number of groups too: the middle of the channels then lies inside a group."""
    module = Port(channels, groups)
    built = inserted("shuffle", {}, module.state_dict(), channels, target=target)
    assert built.block.values["half"] == channels // (2 * groups)
    assert_is(built, module)


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
def test_operators(opset: int) -> None:
    normal = ["ReduceMean", "Mul", "InstanceNormalization", "Add", "Sigmoid", "Mul"]
    assert build("shuffle", {"half": 2}, feature_map(12), opset=opset).operators == [*normal, *SHUFFLE]
    dynamic = build("shuffle", {"half": 2}, feature_map(12, None, batch=None), opset=opset)
    # the operator is not exact on a large map, see test_large_maps.py
    centred, scaled = ["Sub", "Mul", "ReduceMean", "Add", "Sqrt"], ["Add", "Div", "Mul", "Add", "Sigmoid", "Mul"]
    assert dynamic.operators == ["ReduceMean", "Mul", *centred, *scaled, "Gather"]
    halves = build("shuffle", {"half": 2}, feature_map(12), target="onnxruntime")
    assert halves.operators.count("Gather") == 3
    shapes = onnx.shape_inference.infer_shapes(halves.model).graph.value_info
    (normal,) = (node for node in halves.graph.node if node.op_type == "InstanceNormalization")
    assert [dimensions(value)[1] for value in shapes if value.name == normal.output[0]] == [6]


def test_channels_that_do_not_make_the_groups_are_refused() -> None:
    with pytest.raises(BlockError, match=r"/model.8 has 64 channels, which do not make 64 groups of two halves"):
        build("shuffle", feature=feature_map(64))
    with pytest.raises(BlockError, match=r"12 channels, which do not make halves of 4 channels"):
        build("shuffle", {"half": 4}, feature_map(12))


def test_it_has_no_identity_and_says_that_it_reorders() -> None:
    with pytest.raises(BlockError, match="gate='residual'"):
        make_block("shuffle").identity(feature_map(128))
    assert "reorders the channels" in make_block("shuffle").untrained


def test_a_fresh_block_scales_by_sigmoid_1() -> None:
    feature = feature_map(128)
    built = build("shuffle", feature=feature, weights=make_block("shuffle").initial(feature, np.random.default_rng(0)))
    x = np.random.default_rng(1).standard_normal((1, 128, 13, 21)).astype(np.float32)
    order = np.arange(128).reshape(2, 64).T.reshape(-1)
    np.testing.assert_allclose(Runtime(built.model)(x), x[:, order] / (1 + np.exp(-1)), rtol=1e-5, atol=1e-6)


def test_the_groups_are_read_off_the_weights() -> None:
    given = random_weights(make_block("shuffle", {"groups": 8}), feature_map(64))
    block, _ = fit(make_block("shuffle"), feature_map(64), given)
    assert block.values["half"] == 4
