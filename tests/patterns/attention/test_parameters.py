"""Parameters of every block: keys, shapes and first values are its PyTorch module's, and can be read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.harness import Named, build, every_block, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_agrees


@every_block
@pytest.mark.parametrize("feature", [feature_map(48, 13, 21), feature_map(40, 8, 8)], ids=["48x13x21", "40x8x8"])
def test_parameters_are_the_modules_state(block: Named, feature: FeatureMap) -> None:
    made = make_block(*block)
    state = made.module(feature).state_dict()
    expected = {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert made.parameters(feature) == expected
    assert made.has_weights is bool(expected)


@every_block
def test_initial_weights_are_the_modules_own(block: Named) -> None:
    """The same distribution as the module's: exactly where it is a number, by its moments where it is random."""
    made, feature = make_block(*block), feature_map(256, 13, 21)
    torch.manual_seed(11)
    state, weights = made.module(feature).state_dict(), made.initial(feature, np.random.default_rng(3))
    another = made.module(feature).state_dict()
    assert set(weights) == set(made.parameters(feature))
    for key, values in weights.items():
        theirs = state[key].numpy()
        assert values.dtype == np.float32
        assert values.shape == theirs.shape
        if torch.equal(another[key], state[key]):
            np.testing.assert_array_equal(values, theirs, err_msg=key)
        elif values.size > 500:
            assert abs(values.std() / theirs.std() - 1) < 0.12, key
            assert abs(np.abs(values).max() / np.abs(theirs).max() - 1) < 0.5, key
            assert abs(values.mean()) < 4 * theirs.std() / np.sqrt(values.size), key


@every_block
def test_initial_weights_follow_from_the_seed(block: Named) -> None:
    made, feature = make_block(*block), feature_map(32)
    once, again, other = (made.initial(feature, np.random.default_rng(seed)) for seed in (5, 5, 6))
    for key, values in once.items():
        np.testing.assert_array_equal(values, again[key])
    random = [key for key, values in once.items() if not np.array_equal(values, other[key])]
    one, two = made.module(feature).state_dict(), made.module(feature).state_dict()
    assert random == [key for key in once if not torch.equal(one[key], two[key])]


@every_block
def test_a_fresh_block_agrees_and_can_be_read_back(block: Named) -> None:
    made, feature = make_block(*block), feature_map(32, 20, 20, batch=1)
    weights = made.initial(feature, np.random.default_rng(1))
    for lowering in made.lowerings(feature, 17):
        built = build(*block, feature, weights=weights, lowering=lowering)
        assert_agrees(built, Runtime(built.model))
        for key, values in weights.items():
            np.testing.assert_allclose(built.weights[key], values, rtol=1e-6, atol=1e-12, err_msg=key)


@every_block
def test_weights_read_back_are_those_given(block: Named) -> None:
    """Also where a BatchNorm with scales of either sign is folded in; rounded to the site's type at most twice."""
    for dtype, unit in (("float32", 1.2e-7), ("float16", 9.8e-4), ("bfloat16", 7.8e-3), ("float64", 2.3e-16)):
        feature = feature_map(12, dtype=dtype)
        given = random_weights(make_block(*block), feature)
        for lowering in make_block(*block).lowerings(feature, 22):
            read = build(*block, feature, opset=22, lowering=lowering, weights=given).weights
            assert list(read) == list(given)
            for key, values in given.items():
                smallest = 1e-6 if dtype == "float16" else 0.0  # where float16 begins to lose digits
                np.testing.assert_allclose(read[key], values, rtol=2 * unit, atol=smallest, err_msg=key)
