"""Double attention: the convolutions around the attention are off the map, and widths follow from the weights."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime, Stepwise, evaluators
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, few_inputs, random_weights
from tests.patterns.attention.verdicts import assert_agrees, assert_valid


def test_convA_and_the_reconstruction_are_small_products() -> None:
    built = build("a2", feature=feature_map(8))
    weights_of = {node.input[1] for node in built.graph.node if node.op_type == "Conv"}
    assert weights_of == {"block.convB.weight"}
    small = [node.input[0] for node in built.graph.node if node.op_type == "MatMul"]
    assert {"block.convA.weight", "block.conv_reconstruct.weight"} <= set(small)


def test_the_attention_is_over_positions_and_maps_not_over_the_batch() -> None:
    """The ports' softmax makes the output constant over the map for one image, and mixes images."""
    built = build("a2", {"c_m": 5, "c_n": 7}, feature_map(8, 9, 14, batch=2))
    x = np.random.default_rng(2).standard_normal((2, 8, 9, 14)).astype(np.float32)
    y = Runtime(built.model)(x)
    assert y.std(axis=(2, 3)).min() > 1e-2
    alone = build("a2", {"c_m": 5, "c_n": 7}, feature_map(8, 9, 14))
    np.testing.assert_allclose(Runtime(alone.model)(x[1:]), y[1:], rtol=1e-5, atol=1e-6)


def test_widths_follow_from_the_weights() -> None:
    feature = feature_map(8)
    given = random_weights(make_block("a2", {"c_m": 3, "c_n": 5}), feature)
    block, _ = fit(make_block("a2"), feature, given)
    assert block.values == {"c_m": 3, "c_n": 5, "reconstruct": True}


def test_weights_without_a_reconstruction_are_told_by_their_keys() -> None:
    feature = feature_map(8)
    given = random_weights(make_block("a2", {"c_m": 8, "c_n": 5, "reconstruct": False}), feature)
    block, fitted = fit(make_block("a2"), feature, given)
    assert block.values == {"c_m": 8, "c_n": 5, "reconstruct": False}
    assert set(fitted) == set(given)


def test_without_a_reconstruction_the_gathered_channels_are_those_of_the_map() -> None:
    with pytest.raises(BlockError, match=r"a2 gives c_m=128 channels, and /model\.8 has 8: set c_m to 8"):
        build("a2", {"reconstruct": False}, feature_map(8))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("opset", [9, 13, 18, 22])
def test_without_a_reconstruction(opset: int, dtype: str) -> None:
    settings = {"c_m": 12, "c_n": 7, "reconstruct": False}
    for feature in (feature_map(12, dtype=dtype), feature_map(12, None, None, dtype, None)):
        built = build("a2", settings, feature, opset=opset)
        assert built.operators.count("MatMul") == 4
        assert_valid(built)
        for run in evaluators(built):
            assert_agrees(built, run, few_inputs(feature))


def test_float16_at_200() -> None:
    feature = feature_map(64, 12, 9, "float16", 2)
    block = make_block("a2")
    built = build("a2", feature=feature, weights=block.initial(feature, np.random.default_rng(2)))
    x = np.random.default_rng(0).standard_normal((2, 64, 12, 9))
    x = (200 * x / np.abs(x).max()).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)
