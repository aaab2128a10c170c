"""SRM against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.srm import StyleRecalibration
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import batch_norm, sigmoid


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
@pytest.mark.parametrize("size", [(4, 5), (1, 2)])
def test_agrees_with_the_formula(size: tuple[int, int], eps: float) -> None:
    module = randomised(StyleRecalibration(6, bn_eps=eps))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((3, 6, *size)) * 3 + 1
    z = given["cfc"][:, 0] * x.mean((2, 3)) + given["cfc"][:, 1] * x.std((2, 3), ddof=1)
    expected = x * sigmoid(batch_norm(z, given, "bn", eps))[:, :, None, None]
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


def test_keys_and_shapes() -> None:
    bn = {f"bn.{part}": (5,) for part in ("weight", "bias", "running_mean", "running_var")}
    assert shapes(StyleRecalibration(5)) == {"cfc": (5, 2), **bn}


def test_trains_and_starts_at_a_half() -> None:
    module = StyleRecalibration(6)
    assert scale(module, 6) == pytest.approx(0.5)
    module.cfc.data.normal_()
    assert_trains(module, 6)


def test_identity_setting_is_bit_exact() -> None:
    module = StyleRecalibration(6).eval()
    module.bn.bias.data.fill_(20.0)
    x = 20 * torch.randn(2, 6, 9, 5)
    assert torch.equal(module(x), x)
    module.reset_parameters()
    torch.testing.assert_close(module(x), x / 2)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two positions"):
        StyleRecalibration(6)(torch.ones(1, 6, 1, 1))
    with pytest.raises(ValueError, match="at least one channel"):
        StyleRecalibration(0)
