"""Swin: the layers of transformers, timm and torchvision with their weights, padding, shifts, float16."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import Runtime, Stepwise
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map
from tests.patterns.attention.verdicts import assert_agrees

SIZE = (13, 21)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Weights under which the bias table, the masks and all biases matter."""
    torch.manual_seed(6)
    for key, values in module.named_parameters():
        mean = float(values.ndim == 1 and key.endswith("weight"))
        torch.nn.init.normal_(values, mean=mean, std=0.3)
    return module


class Tokens(torch.nn.Module):
    """A layer on tokens [N, H * W, C] and a size, as one on maps."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(2).transpose(1, 2), tuple(x.shape[2:]))[0]
        return y.transpose(1, 2).reshape(x.shape)


class Last(torch.nn.Module):
    """A layer on [N, H, W, C] as one on maps."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("variant", ["window", "shifted"])
@pytest.mark.parametrize("window", [4, 7, 13, 16])
def test_a_transformers_layer(torchvision_misc: object, window: int, variant: str, target: str) -> None:
    """Windows that do not divide 13 x 21, one as large as its shorter side, and (with that table) a larger one."""
    swin: Any = pytest.importorskip("transformers.models.swin.modeling_swin")
    from transformers import SwinConfig

    config = SwinConfig(window_size=min(window, min(SIZE)), mlp_ratio=2.0, hidden_dropout_prob=0.0)
    config._attn_implementation = "eager"
    shift = window // 2 if variant == "shifted" else 0
    layer = shaken(swin.SwinLayer(config, 16, SIZE, 2, shift_size=shift))
    built = inserted(f"swin[{variant}]", {"window": window}, layer.state_dict(), 16, target=target)
    assert built.block.values["heads"] == 2
    assert built.block.values["hidden"] == 32
    assert_is(built, Tokens(layer))


@pytest.mark.parametrize("shift", [0, 2])
def test_a_timm_block(timm_layers: ModuleType, shift: int) -> None:
    """It has the official keys, and its state_dict the index and the mask as well.

    On a map that the windows divide: on others it pads after it has shifted, the published code before.
    """
    timm_swin = importlib.import_module("timm.models.swin_transformer")
    layer = shaken(timm_swin.SwinTransformerBlock(16, (12, 20), num_heads=2, window_size=4, shift_size=shift))
    feature = feature_map(16, 12, 20)
    arrays = {key: values.detach().numpy() for key, values in layer.state_dict().items()}
    block, given = fit(make_block("swin[shifted]" if shift else "swin"), feature, arrays)
    built = build(block.spelled, block.values, feature, weights=given)
    x = np.random.default_rng(3).standard_normal((1, 16, 12, 20))
    with torch.no_grad():
        expected = Last(layer).double().eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(built.expected(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(Runtime(built.model)(x.astype(np.float32)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [0, 2])
def test_a_torchvision_block(torchvision_misc: object, shift: int) -> None:
    torchvision_swin = importlib.import_module("torchvision.models.swin_transformer")
    layer = torchvision_swin.SwinTransformerBlock(16, 2, [4, 4], [shift, shift], stochastic_depth_prob=0.0)
    spelled = "swin[shifted]" if shift else "swin"
    assert_is(inserted(spelled, {}, shaken(layer).state_dict(), 16), Last(layer))


def test_older_keys_of_transformers() -> None:
    feature = feature_map(16)
    block = make_block("swin", {"heads": 2, "window": 4})
    official = block.initial(feature, np.random.default_rng(0))
    renamed: dict[str, np.ndarray] = {}
    names = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    for key, values in official.items():
        prefix, _, part = key.rpartition(".")
        if prefix == "attn.qkv":
            for name, piece in zip(("query", "key", "value"), np.split(values, 3), strict=True):
                renamed[f"attention.self.{name}.{part}"] = piece
        elif prefix == "attn":
            renamed[f"attention.self.{part}"] = values
        else:
            renamed[f"{names[prefix]}.{part}"] = values
    renamed["attention.self.relative_position_index"] = np.zeros((16, 16), np.int64)
    found = {block.official_key(key): values for key, values in block.regrouped(renamed).items()}
    assert set(found) == set(official)
    for key, values in official.items():
        np.testing.assert_array_equal(found[key], values)


@pytest.mark.parametrize("opset", [9, 17])
def test_operators(opset: int) -> None:
    """One transposition in, one into windows, for each of q, k, v and the result, out of windows, and out; one of k."""
    settings = {"heads": 2, "window": 4}
    plain = build("swin", settings, feature_map(12, 8, 12), opset=opset).operators
    assert plain.count("Transpose") == 9
    assert not {"Slice", "Concat", "Pad", "Gather", "Shape", "Split"} & set(plain)
    shifted = build("swin[shifted]", settings, feature_map(12, 8, 12), opset=opset).operators
    assert shifted.count("Transpose") == 9
    assert (shifted.count("Slice"), shifted.count("Concat")) == (8, 4)
    assert plain.count("Add") == shifted.count("Add"), "the mask is part of the bias"
    assert "Pad" in build("swin", settings, feature_map(12, 9, 12), opset=opset).operators


def test_what_is_told_and_what_is_refused() -> None:
    block = make_block("swin[shifted]", {"window": 8})
    assert block.warnings(feature_map(32, 16, 24)) == []
    assert "a window of 8 does not divide 20 x 20: the map is padded" in block.warnings(feature_map(32, 20, 20))[0]
    assert "nothing is shifted" in block.warnings(feature_map(32, 8, 16))[0]
    with pytest.raises(BlockError, match=r"cuts the map into windows, and /model\.8 has a dynamic height or width"):
        build("swin", feature=feature_map(12, None, 20))
    with pytest.raises(BlockError, match=r"/model\.8 has 12 channels, which 5 heads do not divide"):
        build("swin", {"heads": 5}, feature_map(12))


@pytest.mark.parametrize("opset", [13, 17])
def test_float16_at_200(opset: int) -> None:
    feature = feature_map(64, 12, 9, "float16")
    block = make_block("swin[shifted]", {"window": 4})
    given = block.initial(feature, np.random.default_rng(2))
    given = {key: values * (10 if values.ndim > 1 else 1) for key, values in given.items()}
    built = build(block.spelled, {"window": 4}, feature, weights=given, opset=opset)
    x = np.random.default_rng(0).standard_normal((1, 64, 12, 9))
    x = (200 * x / np.abs(x).max() + 20).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)
