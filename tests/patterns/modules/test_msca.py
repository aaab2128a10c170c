"""MSCA, unit and wrapper, against its formula in numpy."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.msca import AttentionModule, SpatialAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, convolution

STRIPS = {"conv0": 7, "conv1": 11, "conv2": 21}


def layer(x: Array, given: State, name: str) -> Array:
    weight = given[f"{name}.weight"]
    return convolution(x, weight, given[f"{name}.bias"], x.shape[1] // weight.shape[1])


def unit(x: Array, given: State, prefix: str = "") -> Array:
    base = layer(x, given, f"{prefix}conv0")
    branches = [layer(layer(base, given, f"{prefix}{name}_1"), given, f"{prefix}{name}_2") for name in STRIPS]
    return x * layer(base + np.asarray(sum(branches)), given, f"{prefix}conv3")


def test_the_unit_agrees_with_the_formula() -> None:
    module = randomised(AttentionModule(3))
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 11))
    expected = unit(x, state_of(module))
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


def test_the_wrapper_agrees_with_the_formula() -> None:
    module = randomised(SpatialAttention(3))
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 11))
    given = state_of(module)
    hidden = layer(x, given, "proj_1")
    hidden = hidden / 2 * (1 + np.vectorize(erf)(hidden / sqrt(2)))
    expected = x + layer(unit(hidden, given, "spatial_gating_unit."), given, "proj_2")
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


def test_keys_and_shapes() -> None:
    expected: dict[str, tuple[int, ...]] = {"conv0.weight": (6, 1, 5, 5), "conv3.weight": (6, 6, 1, 1)}
    for name, k in STRIPS.items():
        expected |= {f"{name}_1.weight": (6, 1, 1, k), f"{name}_2.weight": (6, 1, k, 1)}
    expected |= {key.replace("weight", "bias"): (6,) for key in expected}
    assert shapes(AttentionModule(6)) == expected
    wrapped = {f"spatial_gating_unit.{key}": shape for key, shape in expected.items()}
    for proj in ("proj_1", "proj_2"):
        wrapped |= {f"{proj}.weight": (6, 6, 1, 1), f"{proj}.bias": (6,)}
    assert shapes(SpatialAttention(6)) == wrapped


def test_both_train() -> None:
    assert_trains(AttentionModule(6), 6)
    assert_trains(SpatialAttention(6), 6)
    assert 0.05 < scale(AttentionModule(64), 64) < 0.6


@pytest.mark.parametrize("kind", [AttentionModule, SpatialAttention])
def test_identity_setting_is_bit_exact(kind: type[AttentionModule] | type[SpatialAttention]) -> None:
    module = kind(8).eval()
    last = module.proj_2 if isinstance(module, SpatialAttention) else module.conv3
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 0.0 if isinstance(module, SpatialAttention) else 1.0)
    x = 20 * torch.randn(2, 8, 9, 5)
    assert torch.equal(module(x), x)
