"""CoTNet's own layer in its forms, opsets and element types: it takes multiples of eight channels."""

from __future__ import annotations

import pytest

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Stepwise, evaluators
from tests.patterns.attention.harness import HALVES, build, feature_map, few_inputs, forms
from tests.patterns.attention.verdicts import assert_agrees, assert_types, assert_valid

COTNET = ("cot[cotnet]", {"bn_eps": 1e-3})


@pytest.mark.parametrize("opset", [9, 13, 18, 22])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(7, 10), (None, None)])
def test_numbers(dtype: str, opset: int, size: tuple[int | None, int | None]) -> None:
    feature = feature_map(16, *size, dtype, batch=None)
    for built in forms(COTNET, feature, opset):
        assert_types(built)
        assert_valid(built)
        for run in evaluators(built):
            assert_agrees(built, run, few_inputs(feature))


@pytest.mark.parametrize("precision", ["safe", "site"])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision(dtype: str, precision: str) -> None:
    feature = feature_map(16, 7, 10, dtype)
    built = build(*COTNET, feature, opset=22, precision=precision)
    assert_types(built)
    assert_agrees(built, Stepwise(built.model), few_inputs(feature), rounded=True)


def test_channels_that_eight_does_not_divide_are_refused() -> None:
    with pytest.raises(BlockError, match=r"12 channels; cot\[cotnet\] takes multiples of 8"):
        make_block("cot[cotnet]").check(feature_map(12))
