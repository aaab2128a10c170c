"""SGE: its two forms, its groups, and what it does where there is nothing to tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    for batch in (1, None):
        operators = build("sge", {"groups": 3}, feature_map(12, batch=batch), opset=opset).operators
        assert operators.count("Reshape") == 3
        assert operators.count("MatMul") == 1
        assert "Shape" not in operators
    dynamic = build("sge", {"groups": 3}, feature_map(12, None, None, batch=None), opset=opset).operators
    assert "Reshape" not in dynamic
    assert dynamic.count("Conv") == 2


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 has 96 channels, which 64 groups do not divide"):
        build("sge", feature=feature_map(96))
    with pytest.raises(BlockError, match=r"sge needs more than one position, and /model\.8 is 1 x 1"):
        build("sge", {"groups": 2}, feature_map(12, 1, 1))


def test_groups_follow_from_the_weights() -> None:
    feature = feature_map(96)
    given = random_weights(make_block("sge", {"groups": 8}), feature)
    block, _ = fit(make_block("sge"), feature, given)
    assert block.values["groups"] == 8


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("lowering", ["matmul", "maps"])
def test_a_constant_map_gets_the_gate_of_its_bias(lowering: str, dtype: str) -> None:
    """Rounding errors, divided by their own deviation, would come out as large as anything else."""
    feature = feature_map(12, 20, 20, dtype)
    given = {"weight": np.full((1, 2, 1, 1), 3.0, np.float32), "bias": np.ones((1, 2, 1, 1), np.float32)}
    built = build("sge", {"groups": 2}, feature, lowering=lowering, weights=given)
    for value in (0.0, 0.7, -7.0, 100.0):
        x = np.full((1, 12, 20, 20), value, feature.numpy_dtype)
        y = Runtime(built.model)(x).astype(np.float64)
        np.testing.assert_allclose(y, x.astype(np.float64) * 0.73105858, rtol=2e-3 if dtype == "float16" else 2e-4)


@pytest.mark.parametrize("magnitude", [200.0, 3000.0])
@pytest.mark.parametrize("lowering", ["matmul", "maps"])
def test_float16_holds_the_products(lowering: str, magnitude: float) -> None:
    built = build("sge", {"groups": 2}, feature_map(12, 40, 40, "float16"), lowering=lowering)
    x = ((np.random.default_rng(1).standard_normal((1, 12, 40, 40)) + 1) * magnitude).astype(np.float16)
    assert np.isfinite(Runtime(built.model, optimise=False)(x)).all()
