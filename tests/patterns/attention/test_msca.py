"""MSCA: the gating unit, its wrapper, and which of them a file of weights is for."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.errors import WeightsError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights

CHAIN = [*["Conv"] * 7, *["Add"] * 3, "Conv", "Mul"]
GELU = ["Div", "Erf", "Add", "Mul", "Mul"]


@pytest.mark.parametrize("opset", [9, 11, 17, 20, 22])
def test_operators(opset: int) -> None:
    for height in (13, None):
        feature = feature_map(12, height)
        assert build("msca", feature=feature, opset=opset).operators == CHAIN
        expected = ["Conv", *GELU, *CHAIN, "Conv", "Add"]
        assert build("msca[wrapper]", feature=feature, opset=opset).operators == expected


def test_strips_keep_their_biases_at_the_borders() -> None:
    """They are not joined: the second pads with zeros, not with what the first gives there."""
    feature = feature_map(2, 9, 9)
    given = {key: np.zeros(shape) for key, shape in make_block("msca").parameters(feature).items()}
    given["conv0_1.bias"] += 1.0
    given["conv0_2.weight"] += 1.0
    given["conv3.weight"] += np.eye(2)[:, :, None, None]
    gate = build("msca", feature=feature, weights=given).expected(np.ones((1, 2, 9, 9)))
    assert gate[0, 0, :, 4].tolist() == [4, 5, 6, 7, 7, 7, 6, 5, 4]


def test_weights_of_the_wrapper_are_not_those_of_the_unit() -> None:
    feature = feature_map(8)
    unit, wrapper = (random_weights(make_block(spelled), feature) for spelled in ("msca", "msca[wrapper]"))
    assert set(wrapper) == {f"spatial_gating_unit.{key}" for key in unit} | {
        f"proj_{i}.{part}" for i in (1, 2) for part in ("weight", "bias")
    }
    for spelled, other in (("msca[unit]", wrapper), ("msca[wrapper]", unit)):
        with pytest.raises(WeightsError, match="lacks"):
            fit(make_block(spelled), feature, other)


def test_the_wrappers_identity_can_be_trained_from() -> None:
    """Only the last convolution is zero: its gradient is what the unit lets through, and that is not zero."""
    values = make_block("msca[wrapper]").identity(feature_map(8))
    zero = [key for key, each in values.items() if not each.any()]
    assert zero == ["spatial_gating_unit.conv3.weight", "proj_2.weight", "proj_2.bias"]
    assert (values["spatial_gating_unit.conv3.bias"] == 1).all()
