"""What is permitted on top of the tolerance: nothing for most modules, and what rounding moves for the sharp ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.mhsa import YoloMHSA
from graphsurgery.patterns.modules.se import SqueezeExcite
from graphsurgery.verification.conditioning import UNITS, Conditioning
from graphsurgery.verification.tolerance import TOLERANCES


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


class Constant(torch.nn.Module):
    """Gives the same values whatever its input is, with no operator that could be perturbed."""

    sharp = True

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        values = torch.full((1, 2, 3, 3), 5.0, dtype=torch.float64)
        self.values = torch.nn.Parameter(values) if learned else values

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.values.detach()


FIVES = np.full((1, 2, 3, 3), 5.0)


def test_the_rounding_of_the_result_itself_is_permitted() -> None:
    """24 units of what the output rounds to in float32, and 4 in half precision, where nothing else moves."""
    module = Constant(learned=False)
    assert Conditioning(module, "float32").slack(FIVES, FIVES) == pytest.approx(24 * UNITS["float32"] * 5)
    assert Conditioning(module, "float16").relative(FIVES, FIVES) == pytest.approx(4 * UNITS["float16"])


def test_the_weights_are_perturbed() -> None:
    moved = Conditioning(Constant(learned=True), "float32").slack(FIVES, FIVES)
    assert 1.5 < moved / (24 * UNITS["float32"] * 5) <= 2


class Scaled(torch.nn.Module):
    """A millionth of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1e-6


class Pooled(torch.nn.Module):
    """The mean of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)


def test_rounding_is_relative_to_the_input_where_that_is_larger() -> None:
    found = Conditioning(Scaled(), "float16").relative(FIVES, FIVES * 1e-6)
    assert found == pytest.approx(4 * UNITS["float16"], rel=1e-4)


def test_no_rounding_is_measured_for_an_output_of_another_shape() -> None:
    assert Conditioning(Pooled(), "float16").relative(FIVES, FIVES[:, :, :1, :1]) == 0.0


class Cancelling(torch.nn.Module):
    """x, and what is left of a sum of terms a million times as large."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = 1e6 * (1.0 + x)
        return large * 1.001 - large * 1.001 + x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_comparison_permits_is_the_tolerance_and_little_on_top(dtype: str) -> None:
    module = SqueezeExcite(16, 4).double().eval()
    x = np.random.default_rng(0).standard_normal((1, 16, 6, 5))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    stated = TOLERANCES[dtype].allowed(expected)
    found = Conditioning(module, dtype).permitted(x, expected)
    assert found is not None
    assert (found >= stated).all()
    assert (found <= 1.5 * stated).all()


def test_nothing_is_permitted_where_rounding_decides() -> None:
    x = np.random.default_rng(0).standard_normal((1, 16, 6, 5))
    assert Conditioning(Cancelling(), "float32").permitted(x, x) is None
    assert Conditioning(torch.nn.Identity(), "float32").permitted(x, x) is not None
    assert Conditioning(torch.nn.Identity(), "float32").permitted(x, np.full_like(x, np.inf)) is None
