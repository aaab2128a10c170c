"""LSK: its two variants' operators, and what it cannot be put on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Stepwise
from tests.patterns.attention.harness import build, feature_map
from tests.patterns.attention.verdicts import assert_agrees

UNIT = [*["Conv"] * 4, "ReduceMean", "ReduceMean", "ReduceMax", "ReduceMax", "Max", "Concat"]
UNIT += ["Conv", "Sigmoid", "Slice", "Slice", "Mul", "Mul", "Add", "Conv", "Mul"]


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_operators(opset: int) -> None:
    """The two maps are pooled one by one: nothing of the map's own size is put side by side, or split."""
    for feature in (feature_map(8), feature_map(8, None, None, batch=None)):
        assert build("lsk", feature=feature, opset=opset).operators == UNIT
        attention = build("lsk[attention]", feature=feature, opset=opset).operators
        assert attention[0] == "Conv"
        assert attention[-2:] == ["Conv", "Add"]
        assert attention[-2 - len(UNIT) : -2] == UNIT


@pytest.mark.parametrize("variant", ["unit", "attention"])
def test_an_odd_number_of_channels_is_refused(variant: str) -> None:
    with pytest.raises(BlockError, match=r"lsk halves the channels, and /model\.8 has 7"):
        build(f"lsk[{variant}]", feature=feature_map(7))


def test_float16_does_not_overflow_where_the_product_does() -> None:
    feature = feature_map(16, 8, 8, "float16")
    block = make_block("lsk[attention]")
    built = build("lsk[attention]", feature=feature, weights=block.initial(feature, np.random.default_rng(2)))
    x = (4000 * np.random.default_rng(0).standard_normal((1, 16, 8, 8))).astype(np.float16)
    unit = built.truth.module.get_submodule("spatial_gating_unit")
    with torch.no_grad():
        inner = unit(torch.nn.functional.gelu(built.truth.module.get_submodule("proj_1")(torch.from_numpy(x).double())))
    assert inner.abs().max() > 65504, "the input is too tame"
    expected = built.expected(x)
    fits = np.abs(expected) < 6e4
    y = Stepwise(built.model)(x)
    assert fits.mean() > 0.5
    np.testing.assert_allclose(y[fits], expected[fits], rtol=0.02, atol=0.003 * np.abs(expected).max())


@pytest.mark.parametrize("spelled", ["lsk", "lsk[attention]"])
def test_float16_at_200(spelled: str) -> None:
    feature = feature_map(64, 12, 9, "float16", 2)
    block = make_block(spelled)
    built = build(spelled, feature=feature, weights=block.initial(feature, np.random.default_rng(2)))
    x = np.random.default_rng(0).standard_normal((2, 64, 12, 9))
    x = (200 * x / np.abs(x).max()).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)
