"""ELA, in both forms, against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.ela import EfficientLocalAttention, SeparateLocalAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, convolution, group_norm, sigmoid


def gate(means: Array, given: State, conv: str, norm: str, groups: int, separate: bool) -> Array:
    """[N, C, 1, L] -> [N, C, 1, L]."""
    weight = given[f"{conv}.weight"].reshape(means.shape[1], -1, 1, max(given[f"{conv}.weight"].shape[2:]))
    z = convolution(means, weight, given.get(f"{conv}.bias"), means.shape[1] // weight.shape[1])
    z = group_norm(z, groups, given, norm)
    return sigmoid(z * sigmoid(z) if separate else z)


@pytest.mark.parametrize(
    ("kernel", "conv_groups", "norm_groups", "bias"), [(7, 8, 4, False), (5, 2, 2, False), (1, 1, 1, True)]
)
def test_shared_layers_agree_with_the_formula(kernel: int, conv_groups: int, norm_groups: int, bias: bool) -> None:
    module = randomised(EfficientLocalAttention(8, kernel, conv_groups, norm_groups, bias))
    x = np.random.default_rng(1).standard_normal((3, 8, 4, 9)) * 2
    given = state_of(module)
    rows, columns = (gate(m[:, :, None], given, "conv", "gn", norm_groups, False) for m in (x.mean(3), x.mean(2)))
    expected = x * rows.transpose(0, 1, 3, 2) * columns
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("skip", [True, False])
def test_separate_layers_agree_with_the_formula(skip: bool) -> None:
    module = randomised(SeparateLocalAttention(6, 5, 2, skip))
    x = np.random.default_rng(1).standard_normal((3, 6, 4, 9)) * 2
    given = state_of(module)
    rows = gate(x.mean(3)[:, :, None], given, "conv_h", "norm_h", 2, True).transpose(0, 1, 3, 2)
    columns = gate(x.mean(2)[:, :, None], given, "conv_w", "norm_w", 2, True)
    expected = x * rows * columns + (x if skip else 0)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_keys_and_shapes() -> None:
    norm = {"gn.weight": (32,), "gn.bias": (32,)}
    assert shapes(EfficientLocalAttention(32)) == norm | {"conv.weight": (32, 1, 7)}
    dense = EfficientLocalAttention(32, 1, conv_groups=1, bias=True)
    assert shapes(dense) == norm | {"conv.weight": (32, 32, 1), "conv.bias": (32,)}
    assert shapes(SeparateLocalAttention(6)) == {
        "conv_h.weight": (6, 1, 7, 1),
        "conv_w.weight": (6, 1, 1, 7),
        "norm_h.weight": (6,),
        "norm_h.bias": (6,),
        "norm_w.weight": (6,),
        "norm_w.bias": (6,),
    }


def test_both_train_and_start_at_a_third() -> None:
    assert_trains(EfficientLocalAttention(16), 16)
    assert_trains(SeparateLocalAttention(8), 8)
    assert 0.25 < scale(EfficientLocalAttention(64), 64) < 0.4


def test_identity_setting_is_bit_exact() -> None:
    x = 20 * torch.randn(2, 16, 9, 5)
    for module in (EfficientLocalAttention(16).eval(), SeparateLocalAttention(16).eval()):
        for layer in module.modules():
            if isinstance(layer, nn.GroupNorm):
                nn.init.zeros_(layer.weight)
                nn.init.constant_(layer.bias, 20.0)
        assert torch.equal(module(x), x)


def test_even_kernels_are_refused() -> None:
    for kind in (EfficientLocalAttention, SeparateLocalAttention):
        with pytest.raises(ValueError, match="odd kernels, not 4"):
            kind(16, 4)
