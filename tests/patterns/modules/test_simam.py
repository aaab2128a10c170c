"""SimAM against its formula, written out in numpy in the published (summing) form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.simam import SimAM


def naive(x: np.ndarray, e_lambda: float = 1e-4, divisor: str = "HW-1") -> np.ndarray:
    """The form of the code, or with HW of the paper, one channel and one position at a time, in float64."""
    y = np.empty_like(x)
    for image, channel in np.ndindex(*x.shape[:2]):
        values = x[image, channel]
        n = values.size - (divisor == "HW-1")
        mean = values.sum() / values.size
        total = sum((v - mean) ** 2 for v in values.flat)
        for row, column in np.ndindex(*values.shape):
            energy = (values[row, column] - mean) ** 2 / (4 * (total / n + e_lambda)) + 0.5
            y[image, channel, row, column] = values[row, column] / (1 + np.exp(-energy))
    return y


def run(x: np.ndarray, **settings: Any) -> np.ndarray:
    return SimAM(**settings).eval()(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (1, 4, 20, 20), (2, 2, 5, 12), (1, 2, 1, 2), (1, 1, 9, 1)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 20.0])
def test_agrees_with_the_formula(shape: tuple[int, ...], scale: float) -> None:
    x = scale * np.random.default_rng(1).standard_normal(shape) + scale / 2
    np.testing.assert_allclose(run(x), naive(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (1, 2, 1, 2), (1, 3, 1, 1)])
def test_the_divisor_of_the_paper(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    np.testing.assert_allclose(run(x, divisor="HW"), naive(x, divisor="HW"), rtol=1e-12, atol=0)
    if shape[2:] != (1, 1):
        assert np.abs(run(x, divisor="HW") - run(x)).max() > 1e-3, "no comparison would tell the two"


@pytest.mark.parametrize("e_lambda", [1e-6, 1e-4, 0.1, 512.0])
def test_e_lambda(e_lambda: float) -> None:
    x = np.random.default_rng(2).standard_normal((1, 3, 6, 6))
    np.testing.assert_allclose(run(x, e_lambda=e_lambda), naive(x, e_lambda), rtol=1e-12, atol=0)


def test_the_default_e_lambda_is_the_published_one() -> None:
    assert SimAM().e_lambda == 1e-4


def test_a_constant_channel_is_scaled_by_sigmoid_of_a_half() -> None:
    y = run(np.full((1, 1, 8, 8), 3.0))
    np.testing.assert_allclose(y, 3.0 / (1 + np.exp(-0.5)), rtol=1e-14)


def test_float16_does_not_overflow_where_the_sum_of_squares_does() -> None:
    x = (4 * np.random.default_rng(3).standard_normal((1, 2, 80, 80))).astype(np.float16)
    squares = (x.astype(np.float64) ** 2).sum(axis=(2, 3))
    assert (squares > np.finfo(np.float16).max).all(), "the input is too tame to tell the two forms apart"
    y = run(x)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.astype(np.float64), naive(x.astype(np.float64)), rtol=4e-3, atol=2.5e-3)


def test_float32_agrees_with_float64() -> None:
    x = np.random.default_rng(4).standard_normal((1, 8, 20, 20)).astype(np.float32)
    y = run(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, naive(x.astype(np.float64)), rtol=2e-6, atol=1e-7)


def test_has_no_state() -> None:
    assert SimAM().state_dict() == {}
    assert list(SimAM().parameters()) == []


def test_training_mode_is_the_same_function_and_has_gradients() -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    module = SimAM()
    y = module.train()(x)
    assert torch.equal(y, module.eval()(x))
    assert torch.autograd.gradcheck(module, (x[:1, :1].detach().requires_grad_(),))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_single_position_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two positions"):
        SimAM()(torch.ones(1, 4, 1, 1))


@pytest.mark.parametrize("e_lambda", [0.0, -1.0, float("nan")])
def test_an_e_lambda_that_is_not_positive_is_refused(e_lambda: float) -> None:
    with pytest.raises(ValueError, match="e_lambda above 0"):
        SimAM(e_lambda=e_lambda)


def test_another_divisor_is_refused() -> None:
    with pytest.raises(ValueError, match="divisors HW-1 and HW, not 'M'"):
        SimAM(divisor="M")
