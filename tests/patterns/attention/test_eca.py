"""ECA: its two forms, its kernel, and the weights of the modules that people have."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.harness import build, feature_map

BAND = ["ReduceMean", "Conv", "Sigmoid", "Mul"]
ROW = ["ReduceMean", "Reshape", "Conv", "Sigmoid", "Reshape", "Mul"]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    for height, batch in ((13, 1), (13, None), (None, None)):
        feature = feature_map(12, height, batch=batch)
        assert build("eca", feature=feature, opset=opset).operators == BAND
        assert build("eca", feature=feature, opset=opset, target="onnxruntime").operators == ROW


def test_wide_sites_have_no_band() -> None:
    """Its weight would be larger than what it is good for."""
    assert build("eca", feature=feature_map(1024, 4, 4)).operators == BAND
    assert build("eca", feature=feature_map(1032, 4, 4)).operators == ROW


def test_the_band() -> None:
    given = {"conv.weight": np.array([1.0, 2, 4, 8, 16], np.float32).reshape(1, 1, 5)}
    feature = feature_map(4)
    band = build("eca", {"kernel": 5}, feature, weights=given).constants["block.conv.weight"]
    zeros = [[4, 8, 16, 0], [2, 4, 8, 16], [1, 2, 4, 8], [0, 1, 2, 4]]
    assert numpy_helper.to_array(band)[:, :, 0, 0].tolist() == zeros
    ring = build("eca[timm-ceca]", {"kernel": 5}, feature, weights=given).constants["block.conv.weight"]
    assert numpy_helper.to_array(ring)[:, :, 0, 0].tolist() == [
        [4, 8, 17, 2],
        [2, 4, 8, 17],
        [17, 2, 4, 8],
        [8, 17, 2, 4],
    ]


@pytest.mark.parametrize(
    ("channels", "kernel"), [(8, 3), (64, 3), (96, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_adaptive_kernel_is_timms(timm_layers: ModuleType, channels: int, kernel: int) -> None:
    block = make_block("eca", {"adaptive": True})
    assert block.parameters(feature_map(channels))["conv.weight"] == (1, 1, kernel)
    assert timm_layers.EcaModule(channels).conv.kernel_size == (kernel,)


def test_the_kernel_is_three_unless_asked_for() -> None:
    """The official code does not compute it from the channels."""
    assert make_block("eca").parameters(feature_map(2048))["conv.weight"] == (1, 1, 3)
    both = make_block("eca", {"kernel": 9, "adaptive": True})
    assert both.parameters(feature_map(2048))["conv.weight"] == (1, 1, 9)
    assert "adaptive has no effect" in both.warnings(feature_map(2048))[0]
    assert make_block("eca").warnings(feature_map()) == []


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(BlockError, match="kernel of eca is odd, not 4"):
        build("eca", {"kernel": 4})
    with pytest.raises(BlockError, match=r"/model\.8 has 2 channels; a kernel of 7 goes round that ring twice"):
        build("eca[timm-ceca]", {"kernel": 7}, feature_map(2))
    build("eca", {"kernel": 7}, feature_map(2))
    with pytest.raises(BlockError, match=r"eca.*has no bias and cannot leave.*gate='residual'"):
        make_block("eca").identity(feature_map())


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize(("spelled", "name"), [("eca", "EcaModule"), ("eca[timm-ceca]", "CecaModule")])
@pytest.mark.parametrize("channels", [24, 128])
def test_a_timm_module(timm_layers: ModuleType, spelled: str, name: str, channels: int, target: str) -> None:
    module = getattr(timm_layers, name)(channels)
    built = inserted(spelled, {}, module.state_dict(), channels, target=target)
    assert built.block.values["kernel"] == module.conv.kernel_size[0]
    assert_is(built, module)


def test_keys_of_ports() -> None:
    weight, bias = np.ones((1, 1, 5), np.float32), np.ones(1, np.float32)
    state = {"conv1.weight": torch.from_numpy(weight), "conv1.bias": torch.from_numpy(bias)}
    built = inserted("eca", {}, state, 12)
    assert built.block.values == {"kernel": 5, "adaptive": False, "bias": True}
