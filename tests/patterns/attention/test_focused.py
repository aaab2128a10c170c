"""Focused linear attention: its windows, and no operator that its size does not need."""

from __future__ import annotations

import pytest

from tests.patterns.attention.evaluators import evaluators
from tests.patterns.attention.harness import build, feature_map, few_inputs
from tests.patterns.attention.verdicts import assert_agrees


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_windows(dtype: str) -> None:
    feature = feature_map(12, 6, 9, dtype, batch=None)
    built = build("focused", {"heads": 2, "window": 3}, feature)
    for run in evaluators(built):
        assert_agrees(built, run, few_inputs(feature), rounded=dtype == "float16")


def test_one_depthwise_convolution_and_no_matrix_over_all_pairs() -> None:
    for spelled, convolutions in (("focused", 5), ("focused[cswin]", 4)):
        operators = build(spelled, {"heads": 2}, feature_map(12)).operators
        assert operators.count("Conv") == convolutions
        assert operators.count("MatMul") == 3
        assert not {"Softmax", "Shape"} & set(operators)
