"""SGE against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.sge import SpatialGroupEnhance
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, sigmoid


def naive(x: Array, groups: int, given: State) -> Array:
    y, size = np.empty_like(x), x.shape[1] // groups
    for n, g in np.ndindex(x.shape[0], groups):
        part = x[n, g * size : (g + 1) * size]
        t = (part * part.mean((1, 2), keepdims=True)).sum(0)
        t = (t - t.mean()) / (t.std(ddof=1) + 1e-5)
        gate = sigmoid(given["weight"][0, g, 0, 0] * t + given["bias"][0, g, 0, 0])
        y[n, g * size : (g + 1) * size] = part * gate
    return y


@pytest.mark.parametrize("magnitude", [1e-3, 1.0])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_agrees_with_the_formula(groups: int, magnitude: float) -> None:
    """At the small magnitude the place of epsilon, behind the root, shows."""
    module = randomised(SpatialGroupEnhance(6, groups))
    x = magnitude * (np.random.default_rng(1).standard_normal((3, 6, 4, 5)) + 0.5)
    actual = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(actual, naive(x, groups, state_of(module)), rtol=1e-9, atol=1e-13)


def test_keys_and_shapes() -> None:
    assert shapes(SpatialGroupEnhance(64, 8)) == {"weight": (1, 8, 1, 1), "bias": (1, 8, 1, 1)}
    assert SpatialGroupEnhance(128).groups == 64


def test_trains_and_starts_at_the_sigmoid_of_one() -> None:
    module = SpatialGroupEnhance(8, 2)
    assert scale(module, 8) == pytest.approx(0.7311, abs=1e-4)
    module.weight.data.normal_()
    assert_trains(module, 8)


def test_identity_setting_is_bit_exact() -> None:
    module = SpatialGroupEnhance(8, 2).eval()
    module.bias.data.fill_(20.0)
    x = 20 * torch.randn(2, 8, 9, 5)
    assert torch.equal(module(x), x)
    module.reset_parameters()
    assert not torch.equal(module(x), x)


@pytest.mark.parametrize("value", [0.7, -7.0, 300.0])
def test_a_constant_map_has_no_likeness_to_enhance(value: float) -> None:
    module = SpatialGroupEnhance(8, 2).eval()
    module.weight.data.fill_(3.0)
    x = torch.full((1, 8, 13, 21), value)
    torch.testing.assert_close(module(x), x * torch.sigmoid(torch.tensor(1.0)), rtol=1e-5, atol=0)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two positions"):
        SpatialGroupEnhance(8, 2)(torch.ones(1, 8, 1, 1))
    with pytest.raises(ValueError, match="6 in 4"):
        SpatialGroupEnhance(6, 4)
