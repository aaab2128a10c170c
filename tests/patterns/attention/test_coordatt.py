"""Coordinate Attention: no concatenation, its hidden widths, and the weights of the modules that people have."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import evaluators
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, few_inputs, random_weights
from tests.patterns.attention.verdicts import assert_agrees


@pytest.fixture(scope="module")
def coord_attn(timm_layers: ModuleType) -> ModuleType:
    """timm's file of coordinate attentions, which timm.layers does not export."""
    return importlib.import_module(f"{timm_layers.__name__}.coord_attn")


STRIP = ["ReduceMean", "Conv", "HardSigmoid", "Mul", "Conv", "Sigmoid", "Mul"]


@pytest.mark.parametrize("opset", [9, 11, 14, 17, 18, 21])
def test_operators(opset: int) -> None:
    """Two strips of seven nodes; nothing is joined, parted or turned, at any site."""
    for height, batch in ((13, 1), (13, None), (None, None)):
        built = build("coordatt", feature=feature_map(12, height, batch=batch), opset=opset)
        assert sorted(built.operators) == sorted(STRIP * 2)
    skipping = build("coordatt[timm]", {"skip": True}, feature_map(12), opset=opset).operators
    assert sorted(skipping) == sorted([*STRIP * 2, "Add"])


def test_both_strips_share_the_first_convolution() -> None:
    first = [node for node in build("coordatt").graph.node if node.op_type == "Conv"][::2]
    assert first[0].input[1:] == first[1].input[1:]


@pytest.mark.parametrize(
    ("spelled", "channels", "hidden"),
    [
        ("coordatt", 64, 8),
        ("coordatt", 512, 16),
        ("coordatt[timm]", 64, 8),
        ("coordatt[timm]", 256, 8),
        ("coordatt[timm]", 384, 16),
        ("coordatt[timm]", 512, 24),
        ("coordatt[timm]", 1024, 40),
    ],
)
def test_hidden_width(spelled: str, channels: int, hidden: int, coord_attn: ModuleType) -> None:
    assert make_block(spelled).parameters(feature_map(channels))["conv1.weight"] == (hidden, channels, 1, 1)
    if "timm" in spelled:
        assert coord_attn.CoordAttn(channels).conv1.weight.shape[0] == hidden


@pytest.mark.parametrize("channels", [24, 64])
@pytest.mark.parametrize("skip", [False, True])
def test_a_timm_module(coord_attn: ModuleType, channels: int, skip: bool) -> None:
    module = coord_attn.CoordAttn(channels, rd_channels=11, has_skip=skip)
    with torch.no_grad():
        module.bn1.running_mean.uniform_(-1, 1)
        module.bn1.running_var.uniform_(0.5, 2)
        module.bn1.weight.uniform_(-1, 1)
    built = inserted("coordatt[timm]", {"skip": skip}, module.state_dict(), channels)
    assert built.block.values["hidden"] == 11
    assert_is(built, module)


def test_keys_of_the_older_copy() -> None:
    """mbv2_ca.py calls the last two convolutions conv2, for the rows, and conv3, for the columns."""
    feature = feature_map(12)
    given = random_weights(make_block("coordatt"), feature)
    renamed = {key.replace("conv_h", "conv2").replace("conv_w", "conv3"): values for key, values in given.items()}
    renamed["bn1.num_batches_tracked"] = np.array(3)
    _, fitted = fit(make_block("coordatt"), feature, renamed)
    assert {key: values.tolist() for key, values in fitted.items()} == {k: v.tolist() for k, v in given.items()}


def test_weights_without_biases_are_not_the_official_ones(coord_attn: ModuleType) -> None:
    with pytest.raises(WeightsError, match=r"lacks conv1\.bias"):
        inserted("coordatt", {}, coord_attn.CoordAttn(24).state_dict(), 24)


def test_no_identity_without_biases() -> None:
    with pytest.raises(BlockError, match=r"coordatt\[timm\] has no biases and cannot.*gate='residual'"):
        make_block("coordatt[timm]").identity(feature_map(24))


def test_a_gate_belongs_to_its_side() -> None:
    """A map that is zero but for one row has its means over W in that row alone."""
    feature = feature_map(12, 5, 9)
    given = random_weights(make_block("coordatt"), feature)
    given |= {"conv_w.weight": given["conv_w.weight"] * 0, "conv_w.bias": given["conv_w.bias"] * 0 + 40}
    built = build("coordatt", feature=feature, weights=given)
    x = np.ones((1, 12, 5, 9))
    x[:, :, 3] = 4.0
    gate = built.expected(x) / x
    assert np.ptp(gate, axis=3).max() < 1e-12
    assert np.abs(gate[:, :, 3] - gate[:, :, 2]).max() > 1e-3


@pytest.mark.parametrize("lowering", ["gates", "product"])
@pytest.mark.parametrize("bias", [True, False])
def test_operators_of_the_simple_form(bias: bool, lowering: str) -> None:
    for height, batch in ((13, 1), (None, None)):
        feature = feature_map(12, height, batch=batch)
        built = build("coordatt[timm-simple]", {"bias": bias}, feature, lowering=lowering)
        layers = ["Conv", "Conv", "Conv", "Conv"] if lowering == "gates" else ["MatMul", "MatMul", "MatMul", "MatMul"]
        assert [operator for operator in built.operators if operator in ("Conv", "MatMul")] == layers
        assert built.operators.count("Sigmoid") == 3
        for run in evaluators(built):
            assert_agrees(built, run, few_inputs(feature))


@pytest.mark.parametrize("bias", [True, False])
def test_a_simple_module_of_timm(coord_attn: ModuleType, bias: bool) -> None:
    module = coord_attn.SimpleCoordAttn(48, bias=bias, has_skip=True)
    for target in ("tensorrt", "onnxruntime"):
        built = inserted("coordatt[timm-simple]", {"skip": True}, module.state_dict(), 48, target=target)
        assert built.block.values == {"hidden": 8, "bias": bias, "skip": True}
        assert_is(built, module)
