"""Random last bits in what torch computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import graphsurgery
from graphsurgery.verification.conditioning import UNITS, Conditioning
from graphsurgery.verification.perturbation import perturbed
from tests import models

UNIT = 2.0**-24


def test_every_result_moves_by_at_most_a_unit() -> None:
    x = torch.linspace(1, 2, 1000, dtype=torch.float64)
    with torch.inference_mode(), perturbed(UNIT, 0):
        y = x * 3
    moved = (y / (x * 3) - 1).abs()
    assert 0.5 * UNIT < moved.max() <= UNIT
    assert (moved > 0).float().mean() > 0.9


def test_views_and_integers_do_not_move() -> None:
    x = torch.linspace(1, 2, 16, dtype=torch.float64)
    with torch.inference_mode(), perturbed(0.5, 0):
        y = x.reshape(4, 4).transpose(0, 1)
        count = torch.arange(4) + 1
    assert torch.equal(y, x.reshape(4, 4).T)
    assert count.tolist() == [1, 2, 3, 4]


def test_the_seed_decides() -> None:
    x = torch.ones(8, dtype=torch.float64)

    def run(seed: int) -> torch.Tensor:
        with torch.inference_mode(), perturbed(UNIT, seed):
            return x.exp()

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.GroupNorm(1, 4), nn.LayerNorm([4, 6, 6])])
def test_normalisations_in_steps_are_the_same_function(norm: nn.Module) -> None:
    norm = norm.double().eval()
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    with torch.inference_mode():
        expected = norm(x)
        with perturbed(0.0, 0):
            torch.testing.assert_close(norm(x), expected)


class Sharp(nn.Module):
    """The normalisation of a constant map shows nothing but the error of its mean."""

    sharp = True

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


def test_the_mean_of_a_constant_map_is_allowed_for() -> None:
    module, x = Sharp().double().eval(), np.full((1, 4, 80, 80), 0.7)
    off_by_one_bit = 0.7 * UNITS["float32"] / np.sqrt(1e-5)  # all positions, by the error of one mean
    slack = Conditioning(module, "float32").slack(x, np.zeros_like(x))
    assert off_by_one_bit < slack < 100 * off_by_one_bit


def test_a_wrong_weight_is_still_seen() -> None:
    """What is allowed for is rounding: a weight that is one part in a thousand off is no rounding."""
    module, x = Sharp().double().eval(), np.random.default_rng(0).standard_normal((1, 4, 20, 20))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
        slack = Conditioning(module, "float32").slack(x, expected)
        module.norm.weight[1] += 1e-3
        wrong = module(torch.from_numpy(x)).numpy()
    assert np.abs(wrong - expected).max() > 10 * slack


def test_ema_at_a_large_map_passes() -> None:
    """Its normalisation met a constant map of 6,400 positions with one bit of error in the mean."""
    model = graphsurgery.insert(models.chain("Relu", "Neg", shape=[1, 64, 80, 80]), "ema", after="tensor:t0")
    report = graphsurgery.verify(model, seeds=1)
    assert report.passed, "\n".join(report.lines())
