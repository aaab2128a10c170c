"""CPCA: one convolution three times, and its hidden width."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Stepwise
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_agrees


def test_the_shared_convolution_stands_in_the_model_once() -> None:
    for feature in (feature_map(8), feature_map(8, None, None, batch=None)):
        built = build("cpca", feature=feature)
        read = Counter(node.input[1] for node in built.graph.node if node.op_type == "Conv")
        assert read["block.conv.weight"] == 3
        assert read["block.ca.fc1.weight"] == read["block.ca.fc2.weight"] == 2
        assert sorted(read.values()) == [1] * 7 + [2, 2, 3]
        assert built.operators.count("Sigmoid") == 2


def test_the_hidden_width_follows_from_the_weights() -> None:
    feature = feature_map(16)
    given = random_weights(make_block("cpca", {"hidden": 5}), feature)
    block, _ = fit(make_block("cpca"), feature, given)
    assert block.values["hidden"] == 5


def test_a_reduction_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 has 3 channels; a reduction of 4 leaves no hidden channel"):
        build("cpca", feature=feature_map(3))


@pytest.mark.parametrize("spelled", ["cpca"])
def test_float16_at_200(spelled: str) -> None:
    feature = feature_map(64, 12, 9, "float16", 2)
    block = make_block(spelled)
    built = build(spelled, feature=feature, weights=block.initial(feature, np.random.default_rng(2)))
    x = np.random.default_rng(0).standard_normal((2, 64, 12, 9))
    x = (200 * x / np.abs(x).max()).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)
