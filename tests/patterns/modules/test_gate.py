"""The residual gate, around blocks of every kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.ge import GatherExcite
from graphsurgery.patterns.modules.nam import NAM
from graphsurgery.patterns.modules.se import SqueezeExcite
from graphsurgery.patterns.modules.simam import SimAM
from graphsurgery.torch import ResidualGate

BLOCKS = ["simam", "se", "theta-minus", "theta", "theta-plus", "nam"]


def block(name: str) -> nn.Module:
    if name == "simam":
        return SimAM()
    if name == "se":
        return SqueezeExcite(8, 2)
    if name == "nam":
        return NAM(8, "channel+spatial", (13, 9))
    return GatherExcite(8, name, 4)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
def test_is_bit_exact_at_the_start(name: str, train: bool) -> None:
    gated = ResidualGate(block(name)).train(train)
    x = 20 * torch.randn(2, 8, 13, 9)
    assert not torch.equal(gated.block(x), x), "the block itself must do something"
    assert torch.equal(gated(x), x)


@pytest.mark.parametrize("alpha", [0.25, 1.0, -0.5])
def test_agrees_with_the_formula(alpha: float) -> None:
    gated = ResidualGate(block("se")).double().eval()
    nn.init.constant_(gated.alpha, alpha)
    x = torch.randn(2, 8, 13, 9, dtype=torch.float64)
    y = gated.block(x)
    torch.testing.assert_close(gated(x), (1 - alpha) * x + alpha * y, rtol=1e-12, atol=1e-14)


def test_keys_and_shapes() -> None:
    shapes = {key: tuple(value.shape) for key, value in ResidualGate(SqueezeExcite(8, 2)).state_dict().items()}
    inner = {"fc1.weight": (2, 8, 1, 1), "fc1.bias": (2,), "fc2.weight": (8, 2, 1, 1), "fc2.bias": (8,)}
    assert shapes == {"alpha": (1,)} | {f"block.{key}": shape for key, shape in inner.items()}


@pytest.mark.parametrize("name", BLOCKS)
def test_training_opens_the_gate_and_then_reaches_the_block(name: str) -> None:
    gated = ResidualGate(block(name)).train()
    gated(torch.randn(4, 8, 13, 9) + 0.5).square().mean().backward()
    assert gated.alpha.grad is not None
    assert gated.alpha.grad.isfinite().all()
    assert gated.alpha.grad.abs().item() > 0
    nn.init.constant_(gated.alpha, 0.5)
    gated.zero_grad()
    gated(torch.randn(4, 8, 13, 9) + 0.5).square().mean().backward()
    for key, parameter in gated.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def test_reset_parameters_closes_the_gate_only() -> None:
    gated = ResidualGate(SqueezeExcite(8, 2))
    nn.init.constant_(gated.alpha, 0.7)
    weights = {key: value.clone() for key, value in gated.block.state_dict().items()}
    gated.reset_parameters()
    assert not gated.alpha.any()
    assert all(torch.equal(value, weights[key]) for key, value in gated.block.state_dict().items())
