"""LCT against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.lct import LinearContextTransform
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import sigmoid


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_agrees_with_the_formula(groups: int, eps: float) -> None:
    module = randomised(LinearContextTransform(6, groups, eps))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((3, 6, 4, 5)) + np.arange(6)[:, None, None]
    s = x.mean((2, 3)).reshape(3, groups, -1)
    n = (s - s.mean(2, keepdims=True)) / np.sqrt(s.var(2, keepdims=True) + eps)
    gate = sigmoid(given["w"] * n.reshape(3, 6) + given["b"])
    actual = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(actual, x * gate[:, :, None, None], rtol=1e-10, atol=1e-12)


def test_keys_and_shapes() -> None:
    assert shapes(LinearContextTransform(6, 2)) == {"w": (6,), "b": (6,)}


def test_trains_and_starts_above_a_half() -> None:
    assert_trains(LinearContextTransform(6, 2), 6)
    assert 0.45 < scale(LinearContextTransform(128, 16), 128) < 0.65


def test_identity_setting_is_bit_exact() -> None:
    module = LinearContextTransform(6, 2).eval()
    module.w.data.zero_()
    module.b.data.fill_(20.0)
    x = 20 * torch.randn(2, 6, 9, 5)
    assert torch.equal(module(x), x)
    module.reset_parameters()
    assert not torch.equal(module(x), x)


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="6 in 4"):
        LinearContextTransform(6, 4)
