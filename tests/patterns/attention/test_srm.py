"""SRM: its operators, its deviation, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.harness import build, feature_map
from tests.patterns.attention.verdicts import assert_close

STATIC = ["ReduceMean", "Sub", "Mul", "ReduceMean", "Sqrt", "Mul", "Mul", "Add", "Add", "Sigmoid", "Mul"]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    for batch in (1, None):
        assert sorted(build("srm", feature=feature_map(12, batch=batch), opset=opset).operators) == sorted(STATIC)


def test_a_map_of_one_position_is_refused() -> None:
    with pytest.raises(BlockError, match=r"srm needs more than one position, and /model\.8 is 1 x 1"):
        build("srm", feature=feature_map(12, 1, 1))
    build("srm", feature=feature_map(12, 1, 2))


@pytest.mark.parametrize("size", [(1, 2), (2, 2), (40, 40), (160, 160)])
def test_the_divisor_of_the_variance_at_dynamic_sites(size: tuple[int, int]) -> None:
    built = build("srm", feature=feature_map(6, None, None, batch=None))
    x = (np.random.default_rng(1).standard_normal((2, 6, *size)) * 3 + 1).astype(np.float32)
    assert_close(Runtime(built.model)(x), built.expected(x), x, "float32", str(size))


@pytest.mark.parametrize("magnitude", [200.0, 5000.0])
def test_float16_holds_the_squares(magnitude: float) -> None:
    built = build("srm", feature=feature_map(6, 80, 80, "float16"))
    x = (np.random.default_rng(1).standard_normal((1, 6, 80, 80)) * magnitude).astype(np.float16)
    assert np.isfinite(Runtime(built.model, optimise=False)(x)).all()
