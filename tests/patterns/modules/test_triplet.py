"""Triplet Attention against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.triplet import TripletAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, convolution, sigmoid

TURNS = {"cw": (0, 2, 1, 3), "hc": (0, 3, 2, 1), "hw": (0, 1, 2, 3)}


def naive(x: Array, given: State, eps: float) -> Array:
    """Each branch as published: turn, gate, turn back; then the mean of the branches."""
    branches = []
    for name, turn in TURNS.items():
        if f"{name}.conv.conv.weight" in given:
            turned = x.transpose(turn)
            pooled = np.stack([turned.max(1), turned.mean(1)], axis=1)
            logits = batch_norm(convolution(pooled, given[f"{name}.conv.conv.weight"]), given, f"{name}.conv.bn", eps)
            branches.append((turned * sigmoid(logits)).transpose(turn))
    return np.asarray(sum(branches)) / len(branches)


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_agrees_with_the_formula(spatial: bool, eps: float) -> None:
    module = randomised(TripletAttention(spatial, eps))
    x = np.random.default_rng(1).standard_normal((3, 5, 4, 9)) * 2
    expected = naive(x, state_of(module), eps)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_keys_and_shapes() -> None:
    def expected(gates: list[str]) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {f"{gate}.conv.conv.weight": (1, 2, 7, 7) for gate in gates}
        parts = ("weight", "bias", "running_mean", "running_var")
        return found | {f"{gate}.conv.bn.{part}": (1,) for gate in gates for part in parts}

    assert shapes(TripletAttention()) == expected(["cw", "hc", "hw"])
    assert shapes(TripletAttention(spatial=False)) == expected(["cw", "hc"])


def test_trains_and_starts_below_a_half() -> None:
    assert_trains(TripletAttention(), 8)
    assert 0.35 < np.mean([scale(TripletAttention(), 64) for _ in range(5)]) < 0.6


@pytest.mark.parametrize("spatial", [True, False])
def test_identity_setting_is_bit_exact(spatial: bool) -> None:
    module = TripletAttention(spatial).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, 20.0)
    x = 20 * torch.randn(2, 16, 9, 5)
    assert torch.equal(module(x), x)
