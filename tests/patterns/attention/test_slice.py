"""The blocks of cases/ at some sites, for every target, image by image and at large magnitudes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphsurgery.userblocks import make_block
from tests.patterns.attention import test_templates
from tests.patterns.attention.evaluators import Runtime, Stepwise
from tests.patterns.attention.harness import (
    DYNAMIC,
    LATER,
    STATIC,
    Named,
    build,
    feature_map,
    few_inputs,
    forms,
    label,
    possible,
)
from tests.patterns.attention.verdicts import assert_agrees, assert_tensorrt_friendly, assert_valid

every_later_block = pytest.mark.parametrize("block", LATER, ids=label)
SITES = [
    (17, STATIC),
    (18, feature_map(24, 20, 13, "float16", 3)),
    (13, feature_map(24, 9, 14, "float16", 3)),
    (21, replace(DYNAMIC, dtype="float16")),
    (11, DYNAMIC),
    (17, feature_map(12, 8, 9, "float64")),
]


@pytest.mark.long
@every_later_block
def test_numbers_types_and_validity(block: Named) -> None:
    tried = 0
    for opset, feature in SITES:
        if possible(block, feature, opset):
            for built in forms(block, feature, opset):
                test_templates.check(built)
                tried += 1
    assert tried >= 3


@every_later_block
def test_for_every_target(block: Named) -> None:
    for target in test_templates.TARGETS:
        built = build(*block, STATIC, opset=18, target=target)
        assert_valid(built)
        if target == "tensorrt":
            assert_tensorrt_friendly(built)
        assert_agrees(built, Runtime(built.model), few_inputs(STATIC))


@every_later_block
@pytest.mark.parametrize("batch", [1, 3])
def test_batch_mates_do_not_meet(block: Named, batch: int) -> None:
    """An image's result does not depend on the others: the same alone and among them."""
    feature = replace(STATIC, batch=batch)
    built = build(*block, feature)
    x = np.random.default_rng(4).standard_normal((batch, *built.expected(np.zeros((1, 12, 13, 21))).shape[1:]))
    together = built.expected(x)
    for index in range(batch):
        np.testing.assert_allclose(built.expected(x[index : index + 1])[0], together[index], rtol=1e-9, atol=1e-12)


@every_later_block
def test_float16_at_large_magnitudes(block: Named) -> None:
    """Activations of up to 200, fresh weights: nothing leaves the type between operators, and the result is right."""
    feature = feature_map(12, 20, 20, "float16")
    made = make_block(*block)
    built = build(*block, feature, weights=made.initial(feature, np.random.default_rng(1)))
    x = np.clip(np.random.default_rng(5).standard_normal((1, 12, 20, 20)) * 70, -200, 200).astype(np.float16)
    expected = built.expected(x)
    allowed = 0.01 * np.abs(expected).max() + built.slack(x)
    for run in (Runtime(built.model), Stepwise(built.model)):
        assert np.abs(run(x).astype(np.float64) - expected).max() <= allowed  # false for what is no number
