"""PSABlock: Ultralytics' own module with its weights, fused and not, the heads' layout, and float16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphsurgery import weights
from graphsurgery.blocks.state_dict import load_weights
from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import Stepwise, evaluators
from tests.patterns.attention.harness import HALVES, build, feature_map
from tests.patterns.attention.port_functions import area_block
from tests.patterns.attention.verdicts import assert_agrees

ultralytics_blocks = pytest.importorskip("ultralytics.nn.modules.block")

PARTS = ("weight", "bias", "running_mean", "running_var")


def part_of(arrays: dict[str, np.ndarray[Any, Any]]) -> weights.Checkpoint:
    return weights.Checkpoint("w.pt", arrays)


def published(channels: int, heads: int, shortcut: bool = True) -> torch.nn.Module:
    """The module as it lives in a model."""
    torch.manual_seed(5)
    return with_statistics(ultralytics_blocks.PSABlock(channels, 0.5, heads, shortcut))


def with_statistics(module: torch.nn.Module) -> torch.nn.Module:
    """The module with running statistics of its own, and the epsilon that Ultralytics sets."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eps = 1e-3
            for values, low, high in ((part.running_var, 0.3, 2.0), (part.weight, 0.5, 1.5)):
                torch.nn.init.uniform_(values, low, high)
            for values in (part.running_mean, part.bias):
                torch.nn.init.normal_(values, std=0.3)
    return module.eval()


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize(("channels", "heads", "shortcut"), [(64, 1, True), (128, 2, True), (48, 4, False)])
def test_an_ultralytics_module(channels: int, heads: int, shortcut: bool, target: str) -> None:
    module = published(channels, heads, shortcut)
    settings = {"shortcut": shortcut, **({"num_heads": heads} if channels == 48 else {})}
    assert_is(inserted("psablock", settings, module.state_dict(), channels, target=target), module)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize(("area", "ratio"), [(1, 2.0), (3, 1.2), (7, 2.0)])
def test_an_ultralytics_module_with_areas(area: int, ratio: float, target: str) -> None:
    torch.manual_seed(5)
    module = with_statistics(ultralytics_blocks.ABlock(64, 2, ratio, area))
    built = inserted("psablock[area]", {"area": area}, module.state_dict(), 64, target=target)
    assert built.block.values["hidden"] == int(64 * ratio)
    assert_is(built, module)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_first_release_of_yolov12(heads: int) -> None:
    """All of q, then all of k, and v in a layer of its own, with a 5x5 convolution of v."""
    rng, arrays = np.random.default_rng(3), dict[str, np.ndarray[Any, Any]]()
    sides = {"attn.qk": (64, 32, 1), "attn.v": (32, 32, 1), "attn.proj": (32, 32, 1), "attn.pe": (32, 1, 5)}
    for layer, (outputs, inputs, side) in {**sides, "mlp.0": (38, 32, 1), "mlp.1": (32, 38, 1)}.items():
        arrays[f"{layer}.conv.weight"] = rng.normal(0, 0.2, (outputs, inputs, side, side))
        arrays |= {f"{layer}.bn.{part}": rng.uniform(0.5, 1.5, outputs) for part in PARTS}
    site = FeatureMap(32, 6, 8, label="the site")
    fitted = weights.fitted(make_block("psablock[area]", {"num_heads": heads}), site, part_of(arrays), {})
    x = torch.from_numpy(rng.normal(0, 1, (2, 32, 6, 8)))
    module = fitted.block.module(site)
    load_weights(module, fitted.arrays)
    expected = area_block({key: torch.from_numpy(values) for key, values in arrays.items()}, x, heads)
    torch.testing.assert_close(module.double().eval()(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("rows", "channels"), [(64, 16), (63, 32)])
def test_layers_that_do_not_fit_together_are_left_apart(rows: int, channels: int) -> None:
    arrays = {"attn.qk.conv.weight": np.zeros((rows, 32, 1, 1)), "attn.v.conv.weight": np.zeros((32, channels, 1, 1))}
    assert make_block("psablock[area]").regrouped(arrays).keys() == arrays.keys()
    with pytest.raises(WeightsError, match=r"it lacks attn\.qkv\.conv\.weight"):
        weights.fitted(make_block("psablock[area]"), FeatureMap(32, 6, 8), part_of(arrays), {})


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("area", [4, 7])
def test_areas(area: int, dtype: str) -> None:
    built = build("psablock[area]", {"num_heads": 2, "area": area}, feature_map(12, 14, 10, dtype))
    for evaluator in [Stepwise(built.model)] if dtype in HALVES else evaluators(built):
        assert_agrees(built, evaluator)


def test_areas_that_do_not_fit_are_refused() -> None:
    block = make_block("psablock[area]", {"area": 4})
    with pytest.raises(BlockError, match="169 positions, which 4 areas do not divide; set area to a divisor"):
        block.check(feature_map(64, 13, 13))
    with pytest.raises(BlockError, match="dynamic height or width; with area=1 it works on every size"):
        block.check(feature_map(64, None, None))
    make_block("psablock[area]").check(feature_map(64, None, None))


def test_a_fused_ultralytics_module() -> None:
    from ultralytics.utils.torch_utils import fuse_conv_and_bn

    module = published(64, 2)
    for part in module.modules():
        if isinstance(part, ultralytics_blocks.Conv):
            part.conv = fuse_conv_and_bn(part.conv, part.bn)
            del part.bn
            part.forward = part.forward_fuse
    built = inserted("psablock", {"num_heads": 2}, module.state_dict(), 64)
    assert built.block.values["fused"] is True
    assert_is(built, module)


def test_no_map_is_sliced_and_no_scale_is_left() -> None:
    built = build("psablock", {"num_heads": 2}, feature_map(12))
    assert not {"Split", "Slice", "Gather", "Shape", "Div", "BatchNormalization"} & set(built.operators)
    assert built.operators.count("Mul") == 1, "the one of the SiLU"
    assert build("psablock", {"num_heads": 2}, feature_map(12, None, None)).operators.count("Shape") == 1


def test_heads() -> None:
    for channels, heads in ((32, 1), (64, 1), (128, 2), (256, 4)):
        shapes = make_block("psablock").parameters(feature_map(channels))
        assert shapes["attn.qkv.conv.weight"][0] == channels + 2 * heads * (channels // heads // 2)
    with pytest.raises(BlockError, match=r"/model\.8 has 12 channels, which 5 heads do not divide"):
        build("psablock", {"num_heads": 5}, feature_map(12))
    with pytest.raises(BlockError, match=r"with 12 heads and an attn_ratio of 0\.5 no channel is left for the keys"):
        build("psablock", {"num_heads": 12}, feature_map(12))


def test_float16_at_200() -> None:
    """Logits of some ten thousands, which float16 would not hold."""
    feature = feature_map(128, 12, 9, "float16")
    block = make_block("psablock")
    built = build("psablock", feature=feature, weights=block.initial(feature, np.random.default_rng(2)))
    x = np.random.default_rng(0).standard_normal((1, 128, 12, 9))
    x = (200 * x / np.abs(x).max() + 50).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)
