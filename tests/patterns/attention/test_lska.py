"""LSKA: its operators, and the kernel size that follows from the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime, Stepwise
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_agrees

SIZES = (7, 11, 23, 35, 41, 53)


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
def test_operators(opset: int) -> None:
    for feature in (feature_map(), feature_map(height=None, width=None, batch=None)):
        assert build("lska", feature=feature, opset=opset).operators == ["Conv"] * 5 + ["Mul"]


@pytest.mark.parametrize("k_size", SIZES)
def test_strips_are_not_merged_and_keep_the_size(k_size: int) -> None:
    """Each pads with 0 and not with the bias of the one before: visible at the border, where biases are large."""
    built = build("lska", {"k_size": k_size}, feature_map(4, 9, 14))
    x = np.random.default_rng(0).standard_normal((1, 4, 9, 14)).astype(np.float32)
    np.testing.assert_allclose(Runtime(built.model)(x), built.expected(x), rtol=1e-4, atol=1e-5)
    first = built.weights["conv0h.weight"].shape
    assert first == (4, 1, 1, 3 if k_size in (7, 11) else 5)
    merged = np.einsum("cxij,cxjk->cxik", built.weights["conv0v.weight"], built.weights["conv0h.weight"])
    one = torch.nn.functional.conv2d(
        torch.from_numpy(x).double(), torch.from_numpy(merged), padding=merged.shape[-1] // 2, groups=4
    )
    state = {key: torch.from_numpy(values) for key, values in built.weights.items()}
    shift = state["conv0h.bias"] * state["conv0v.weight"].sum((1, 2, 3)) + state["conv0v.bias"]
    module = built.truth.module
    two = module.get_submodule("conv0v")(module.get_submodule("conv0h")(torch.from_numpy(x).double()))
    difference = (one + shift[:, None, None] - two).abs().detach()
    assert difference[:, :, 4, 7].max() < 1e-6, "inside they are one"
    assert difference[:, :, 0].max() > 1e-2, "at the border they are not"


@pytest.mark.parametrize("spelled", ["lska", "lska[wrapper]"])
@pytest.mark.parametrize("k_size", SIZES)
def test_the_kernel_size_follows_from_the_weights(k_size: int, spelled: str) -> None:
    feature = feature_map(8)
    given = random_weights(make_block(spelled, {"k_size": k_size}), feature)
    block, _ = fit(make_block(spelled), feature, given)
    assert block.values == {"k_size": k_size}


def test_weights_of_no_known_kernel_size_are_refused() -> None:
    feature = feature_map(8)
    given = random_weights(make_block("lska"), feature)
    given["conv0h.weight"] = np.zeros((8, 1, 1, 9), np.float32)
    with pytest.raises(WeightsError, match=r"conv0h.weight has the shape \[8, 1, 1, 9\]"):
        fit(make_block("lska"), feature, given)


def test_other_kernel_sizes_are_refused() -> None:
    with pytest.raises(BlockError, match="k_size of lska is one of 7, 11, 23, 35, 41, 53, not 9"):
        make_block("lska", {"k_size": 9})


@pytest.mark.parametrize("spelled", ["lska", "lska[wrapper]"])
def test_float16_at_200(spelled: str) -> None:
    feature = feature_map(64, 12, 9, "float16", 2)
    block = make_block(spelled)
    built = build(spelled, feature=feature, weights=block.initial(feature, np.random.default_rng(2)))
    x = np.random.default_rng(0).standard_normal((2, 64, 12, 9))
    x = (200 * x / np.abs(x).max()).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)
