"""What is permitted on top of the tolerance: nothing for most modules, and what rounding moves for the sharp ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.mhsa import YoloMHSA
from graphsurgery.patterns.modules.se import SqueezeExcite
from graphsurgery.verification.conditioning import UNITS, Conditioning


def slack(module: torch.nn.Module, dtype: str, magnitude: float) -> tuple[float, float]:
    """(slack, largest value of the output) on an input of that magnitude."""
    module = module.double().eval()
    x = magnitude * np.random.default_rng(0).standard_normal((1, 16, 6, 5))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    return Conditioning(module, dtype).slack(x, expected), float(np.abs(expected).max())


@pytest.mark.parametrize("dtype", UNITS)
def test_nothing_for_a_module_that_is_not_sharp(dtype: str) -> None:
    assert slack(SqueezeExcite(16, 4), dtype, 20.0)[0] == 0.0


def test_it_grows_with_the_logits_and_with_the_type() -> None:
    torch.manual_seed(0)
    module = YoloMHSA(16, 2)
    small, large = slack(module, "float32", 1.0), slack(module, "float32", 30.0)
    assert large[0] / large[1] > 5 * small[0] / small[1], "relative to the output"
    assert slack(module, "float16", 1.0)[0] > 100 * small[0]


def test_an_error_of_a_hundredth_is_no_rounding() -> None:
    torch.manual_seed(0)
    permitted, largest = slack(YoloMHSA(16, 2), "float32", 1.0)
    assert permitted < 1e-5 * largest


def test_inside_another_module_and_where_the_result_is_not_finite() -> None:
    assert slack(torch.nn.Sequential(YoloMHSA(16, 2)), "float32", 1.0)[0] > 0
    module = YoloMHSA(16, 2).double()
    assert Conditioning(module, "float32").slack(np.full((1, 16, 2, 2), np.nan), np.full((1, 16, 2, 2), np.nan)) == 0.0


@pytest.mark.parametrize("dtype", UNITS)
def test_rounding_is_measured_in_half_precision_for_any_module(dtype: str) -> None:
    torch.manual_seed(0)
    module = SqueezeExcite(16, 4).double().eval()
    x = 20 * np.random.default_rng(0).standard_normal((1, 16, 6, 5))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    found = Conditioning(module, dtype).relative(x, expected)
    if dtype in ("float32", "float64"):
        assert found == 0.0
    else:
        assert UNITS[dtype] < found < 20 * UNITS[dtype]
