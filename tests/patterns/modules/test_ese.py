"""eSE against its formula in numpy, and against timm."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.ese import EffectiveSqueezeExcite
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of


def test_agrees_with_the_formula() -> None:
    module = randomised(EffectiveSqueezeExcite(6))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((3, 6, 4, 5)) * 60
    z = x.mean((2, 3)) @ given["fc.weight"].reshape(6, 6).T + given["fc.bias"]
    gate = np.minimum(np.maximum(z + 3, 0), 6) / 6
    assert gate.min() == 0
    assert gate.max() == 1
    expected = x * gate[:, :, None, None]
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


def test_agrees_with_timm(timm_layers: ModuleType) -> None:
    referee = randomised(timm_layers.EffectiveSEModule(32))
    module = EffectiveSqueezeExcite(32).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-11, atol=1e-13)


def test_keys_and_shapes() -> None:
    assert shapes(EffectiveSqueezeExcite(5)) == {"fc.weight": (5, 5, 1, 1), "fc.bias": (5,)}


def test_trains_and_starts_at_a_half() -> None:
    assert_trains(EffectiveSqueezeExcite(6), 6)
    assert 0.45 < scale(EffectiveSqueezeExcite(128), 128) < 0.55


def test_identity_setting_is_bit_exact() -> None:
    module = EffectiveSqueezeExcite(16).eval()
    nn.init.zeros_(module.fc.weight)
    assert module.fc.bias is not None
    nn.init.constant_(module.fc.bias, 3.0)
    x = 20 * torch.randn(2, 16, 9, 5)
    assert torch.equal(module(x), x)
    module.reset_parameters()
    assert not torch.equal(module(x), x)


def test_no_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        EffectiveSqueezeExcite(0)
