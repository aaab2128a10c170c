"""Polarized: which convolutions of whole maps are left, float16, and what it cannot be put on."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime, Stepwise
from tests.patterns.attention.harness import build, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_agrees

VARIANTS = ["p", "s", "external-p", "external-s"]


@pytest.mark.parametrize(("variant", "on_maps"), [("p", 1), ("s", 2), ("external-p", 1), ("external-s", 1)])
def test_convolutions_of_whole_maps(variant: str, on_maps: int) -> None:
    """The query of the channel gate, and the value map of s. All other convolutions are of one position."""
    built = build(f"polarized[{variant}]", feature=feature_map(16))
    convolutions = [node for node in built.graph.node if node.op_type == "Conv"]
    by_channel = {node.output[0] for node in built.graph.node if node.op_type == "Mul"}
    assert sum(node.input[0] == "x" or node.input[0] in by_channel for node in convolutions) == on_maps
    assert "Shape" not in built.operators


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_counts(variant: str) -> None:
    """At 32 channels, where the LayerNorm of s is over four."""
    feature, block = feature_map(32, 5, 6), make_block(f"polarized[{variant}]")
    x = 3 * np.random.default_rng(1).standard_normal((1, 32, 5, 6))
    right = build(block.spelled, feature=feature).expected(x)
    for key in block.parameters(feature):
        given = random_weights(block, feature)
        given[key] = given[key] * np.linspace(1.1, 1.0, given[key].size).reshape(given[key].shape)
        moved = np.abs(build(block.spelled, feature=feature, weights=given).expected(x) - right).max()
        assert bool(moved > 1e-5) is (key != "ch_wq.bias"), key


@pytest.mark.parametrize("variant", VARIANTS)
def test_float16_at_200(variant: str) -> None:
    feature = feature_map(64, 12, 9, "float16", 2)
    block = make_block(f"polarized[{variant}]")
    built = build(block.spelled, feature=feature, weights=block.initial(feature, np.random.default_rng(2)))
    x = np.random.default_rng(0).standard_normal((2, 64, 12, 9))
    x = (200 * x / np.abs(x).max() + 100).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_dynamic_template_for_any_size(variant: str) -> None:
    built = build(f"polarized[{variant}]", feature=feature_map(16, None, None, batch=None))
    run = Runtime(built.model)
    for shape in ((1, 16, 20, 20), (3, 16, 5, 9), (2, 16, 1, 1)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(run(x), built.expected(x), rtol=1e-5, atol=1e-5)


def test_channels_that_it_cannot_halve_are_refused() -> None:
    with pytest.raises(BlockError, match=r"polarized halves the channels, and /model\.8 has 7"):
        build("polarized", feature=feature_map(7))
    with pytest.raises(BlockError, match=r"polarized\[s\] takes an eighth of the channels, and /model\.8 has 6"):
        build("polarized[s]", feature=feature_map(6))


def test_a_layer_norm_over_one_channel_is_told() -> None:
    block = make_block("polarized[s]")
    assert "one channel gives its bias whatever comes in" in block.warnings(feature_map(12))[0]
    assert block.warnings(feature_map(16)) == []
