"""MHSA: timm's module with its weights, positions, and the site that they need."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import Stepwise
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_agrees


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize(
    ("heads", "bias", "scaled", "ratio"), [(4, False, False, 1.0), (2, True, False, 1.0), (4, False, True, 0.5)]
)
def test_a_timm_module(
    timm_layers: ModuleType, heads: int, bias: bool, scaled: bool, ratio: float, target: str
) -> None:
    bottleneck = importlib.import_module(f"{timm_layers.__name__}.bottleneck_attn")
    torch.manual_seed(3)
    module = bottleneck.BottleneckAttn(
        32, feat_size=(13, 21), num_heads=heads, qkv_bias=bias, scale_pos_embed=scaled, qk_ratio=ratio
    )
    built = inserted("mhsa", {"scale_pos_embed": scaled}, module.state_dict(), 32, target=target)
    assert built.block.values["heads"] == heads
    assert built.block.values["qkv_bias"] is bias
    assert_is(built, module)


def test_positions_are_products_with_constants() -> None:
    built = build("mhsa", {"heads": 2}, feature_map(12))
    assert not {"Gather", "Pad", "Slice", "Shape", "Expand"} & set(built.operators)
    assert built.operators.count("MatMul") == 5
    assert "Mul" not in built.operators


def test_without_positions_any_size_goes() -> None:
    built = build("mhsa[yolo]", {"heads": 2}, feature_map(12, None, None, batch=None))
    assert built.operators.count("Add") == 0
    for variant, settings in (("botnet", {}), ("yolo", {"pos_emb": True})):
        with pytest.raises(BlockError, match=r"one weight per row and column, and /model\.8 has a dynamic height"):
            build(f"mhsa[{variant}]", settings, feature_map(12, None, 20))


def test_settings_follow_from_the_weights() -> None:
    feature = feature_map(12)
    given = random_weights(make_block("mhsa[yolo]", {"heads": 3, "pos_emb": True}), feature)
    block, _ = fit(make_block("mhsa[yolo]"), feature, given)
    assert block.values == {"heads": 3, "pos_emb": True}
    given = random_weights(make_block("mhsa", {"heads": 3, "key_dim": 5}), feature)
    block, _ = fit(make_block("mhsa"), feature, given)
    assert (block.values["heads"], block.values["key_dim"]) == (3, 5)


@pytest.mark.parametrize("positions", ["absolute", "relative"])
def test_lucidrains_heads_and_positions_follow_from_the_weights(positions: str) -> None:
    feature = feature_map(12)
    given = random_weights(make_block("mhsa[lucidrains]", {"heads": 3, "positions": positions}), feature)
    block, _ = fit(make_block("mhsa[lucidrains]"), feature, given)
    assert block.values == {"heads": 3, "positions": positions}


def test_absolute_positions_are_a_sum_with_a_constant() -> None:
    built = build("mhsa[lucidrains]", {"heads": 2}, feature_map(12))
    assert built.operators.count("MatMul") == 2
    assert built.operators.count("Add") == 1


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 has 12 channels, which 5 heads do not divide"):
        build("mhsa", {"heads": 5}, feature_map(12))


@pytest.mark.parametrize(
    "block", [("mhsa", {}), ("mhsa[yolo]", {"pos_emb": True}), ("mhsa[yolo]", {}), ("mhsa[lucidrains]", {})], ids=str
)
def test_float16_at_200(block: tuple[str, dict[str, object]]) -> None:
    feature = feature_map(64, 12, 9, "float16")
    made = make_block(*block)
    built = build(*block, feature, weights=made.initial(feature, np.random.default_rng(2)))
    x = np.random.default_rng(0).standard_normal((1, 64, 12, 9))
    x = (200 * x / np.abs(x).max() + 20).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)
