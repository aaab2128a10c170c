"""Half precision at the magnitudes that detectors produce, in each of the precisions that a block can be written in."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.template import PRECISIONS
from tests.patterns.attention.evaluators import Runtime, Stepwise
from tests.patterns.attention.gates import assert_gate_follows
from tests.patterns.attention.harness import (
    BLOCKS,
    LATER,
    Array,
    Named,
    build,
    feature_map,
    label,
    trait,
)

ONE_OF_EACH: list[Named] = list({spelled: (spelled, settings) for spelled, settings in [*LATER, *BLOCKS]}.values())
QUADRATIC = {"aifi", "mhsa", "psablock"}
"""Blocks with a weight for each pair of positions, for which 80 x 80 is too much."""
MAGNITUDES = (1.0, 30.0, 200.0)
"""The largest input; the standard deviation is a quarter of it."""


def signal(magnitude: float, side: int, channels: int = 12) -> Array:
    """Normal, every channel with a mean of its own."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, channels, side, side)) + 0.3 * rng.standard_normal((1, channels, 1, 1))
    return np.clip(x * magnitude / 4, -magnitude, magnitude).astype(np.float16)


def check(block: Named, precision: str, magnitude: float, side: int, target: str = "tensorrt") -> bool:
    """The block in float16, every result between two operators rounded; whether its gate could be seen to vary."""
    magnitude = min(magnitude, trait(block[0], "LARGEST", magnitude))
    feature = feature_map(12, side, side, "float16")
    built = build(*block, feature, precision=precision, target=target)
    x = signal(magnitude, side)
    expected = built.expected(x)
    slack, largest = built.conditioning.slack(x, expected), np.abs(expected).max()
    allowed, seen = 0.02 * largest + slack, False
    for run in (Stepwise(built.model), Runtime(built.model)):
        y = run(x)
        what = f"{label(block)}, {precision}, magnitude {magnitude:g}"
        assert np.abs(y.astype(np.float64) - expected).max() <= allowed, what  # false for what is no number
        seen = slack < 0.02 * largest and assert_gate_follows(y, expected, x, what)
    return seen


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("block", ONE_OF_EACH, ids=label)
def test_float16_at_magnitude_200(block: Named, precision: str) -> None:
    check(block, precision, 200.0, 20)


@pytest.mark.long
@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("block", [*BLOCKS, *LATER], ids=label)
def test_float16_on_a_large_map(block: Named, precision: str, magnitude: float) -> None:
    check(block, precision, magnitude, 40 if block[0].partition("[")[0] in QUADRATIC else 80)
