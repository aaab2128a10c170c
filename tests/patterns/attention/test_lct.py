"""LCT: its operators, and its groups."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights

OPERATORS = ["ReduceMean", "Reshape", "InstanceNormalization", "Reshape", "BatchNormalization", "Sigmoid", "Mul"]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    for height, batch in ((13, 1), (13, None), (None, None)):
        built = build("lct", {"groups": 3}, feature_map(12, height, batch=batch), opset=opset)
        assert built.operators == OPERATORS


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 has 24 channels, which 16 groups do not divide"):
        build("lct", feature=feature_map(24))


def test_one_channel_to_a_group_is_warned_of() -> None:
    assert "does not depend on the input" in make_block("lct").warnings(feature_map(16))[0]
    assert make_block("lct").warnings(feature_map(32)) == []


def test_groups_are_runs_of_channels() -> None:
    """Not every third one: with a large mean in one channel only its neighbours' gates close."""
    feature = feature_map(6)
    given = {"w": np.full(6, 5.0, np.float32), "b": np.zeros(6, np.float32)}
    x = np.zeros((1, 6, 13, 21))
    x[:, 1], x[:, [0, 2]], x[:, 3:] = 10.0, 1.0, 1.0
    gate = (build("lct", {"groups": 2}, feature, weights=given).expected(x) / x)[0, :, 0, 0]
    assert gate[1] > 0.99
    assert (gate[[0, 2]] < 0.1).all()
    np.testing.assert_allclose(gate[3:], 0.5)


@pytest.mark.parametrize(("w", "b"), [("weight", "bias"), ("gn.weight", "gn.bias")])
def test_keys_of_ports(w: str, b: str) -> None:
    feature = feature_map(32)
    given = random_weights(make_block("lct"), feature)
    _, fitted = fit(make_block("lct"), feature, {w: given["w"], b: given["b"]})
    assert {key: value.tolist() for key, value in fitted.items()} == {k: v.tolist() for k, v in given.items()}
