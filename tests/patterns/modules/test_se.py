"""Squeeze-and-Excitation against its formula in numpy, and against timm and torchvision."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.se import SqueezeExcite
from tests.patterns.modules.checks import randomised, state_of

ACTIVATIONS = {"relu": lambda z: max(0.0, z), "silu": lambda z: z / (1 + np.exp(-z))}
GATES = {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "hard-sigmoid": lambda z: min(max(z + 3, 0.0), 6.0) / 6}


def naive(x: np.ndarray, state: dict[str, np.ndarray], activation: str = "relu", gate: str = "sigmoid") -> np.ndarray:
    """The formula, one channel at a time, in float64."""
    hidden, channels = state["fc1.weight"].shape[:2]
    b1, b2 = state.get("fc1.bias", np.zeros(hidden)), state.get("fc2.bias", np.zeros(channels))
    y = np.empty_like(x)
    for image in range(x.shape[0]):
        s = [x[image, c].sum() / x[image, c].size for c in range(channels)]
        z = [sum(state["fc1.weight"][r, c, 0, 0] * s[c] for c in range(channels)) + b1[r] for r in range(hidden)]
        for c in range(channels):
            logit = sum(state["fc2.weight"][c, r, 0, 0] * ACTIVATIONS[activation](z[r]) for r in range(hidden)) + b2[c]
            y[image, c] = x[image, c] * GATES[gate](logit)
    return y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("channels", "hidden", "size"), [(16, 1, (13, 13)), (24, 5, (7, 20)), (6, 6, (1, 1))])
def test_agrees_with_the_formula(channels: int, hidden: int, size: tuple[int, int], bias: bool) -> None:
    module = randomised(SqueezeExcite(channels, hidden, bias=bias))
    x = torch.randn(3, channels, *size, dtype=torch.float64) + 0.5
    np.testing.assert_allclose(module(x).detach().numpy(), naive(x.numpy(), state_of(module)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_other_activations_agree_with_the_formula(activation: str, gate: str) -> None:
    module = randomised(SqueezeExcite(12, 5, activation=activation, gate=gate))
    x = 2 * torch.randn(3, 12, 7, 9, dtype=torch.float64) + 0.5
    expected = naive(x.numpy(), state_of(module), activation, gate)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("activation", "gate"), [("silu", "sigmoid"), ("relu", "hard-sigmoid")])
def test_torchvisions_of_efficientnet_and_mobilenet(torchvision_misc: ModuleType, activation: str, gate: str) -> None:
    layers = {"silu": nn.SiLU, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "hard-sigmoid": nn.Hardsigmoid}
    referee = randomised(torchvision_misc.SqueezeExcitation(32, 6, layers[activation], layers[gate]))
    module = SqueezeExcite(32, 6, activation=activation, gate=gate).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 20, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bias", [True, False])
def test_agrees_with_timm(timm_layers: ModuleType, bias: bool) -> None:
    referee = randomised(timm_layers.SqueezeExcite(32, rd_channels=6, bias=bias))
    module = SqueezeExcite(32, 6, bias=bias).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 20, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-12, atol=1e-14)


def test_agrees_with_torchvision(torchvision_misc: ModuleType) -> None:
    referee = randomised(torchvision_misc.SqueezeExcitation(32, 6))
    module = SqueezeExcite(32, 6).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 20, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bias", [True, False])
def test_keys_and_shapes(bias: bool) -> None:
    expected: dict[str, tuple[int, ...]] = {"fc1.weight": (4, 64, 1, 1), "fc2.weight": (64, 4, 1, 1)}
    if bias:
        expected |= {"fc1.bias": (4,), "fc2.bias": (64,)}
    assert {key: tuple(value.shape) for key, value in SqueezeExcite(64, 4, bias=bias).state_dict().items()} == expected


def test_reset_parameters_draws_as_torch_does() -> None:
    module = SqueezeExcite(64, 4)
    for parameter in module.parameters():
        nn.init.constant_(parameter, 9.0)
    torch.manual_seed(3)
    module.reset_parameters()
    torch.manual_seed(3)
    fc1, fc2 = nn.Conv2d(64, 4, 1), nn.Conv2d(4, 64, 1)
    assert torch.equal(module.fc1.weight, fc1.weight)
    assert torch.equal(module.fc2.weight, fc2.weight)
    assert module.fc1.bias is not None
    assert module.fc2.bias is not None
    assert torch.equal(module.fc1.bias, fc1.bias)
    assert torch.equal(module.fc2.bias, fc2.bias)


def test_identity_setting_is_bit_exact() -> None:
    module = SqueezeExcite(32, 4).eval()
    nn.init.zeros_(module.fc2.weight)
    assert module.fc2.bias is not None
    nn.init.constant_(module.fc2.bias, 20.0)
    x = 20 * torch.randn(2, 32, 20, 20)
    assert torch.equal(module(x), x)


def test_training_mode_gives_every_parameter_a_gradient() -> None:
    module = SqueezeExcite(16, 8).train()
    module(torch.randn(4, 16, 10, 10) + 0.5).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("channels", "hidden"), [(16, 0), (0, 4)])
def test_an_empty_width_is_refused(channels: int, hidden: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SqueezeExcite(channels, hidden)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="the activations relu, silu and the gates sigmoid, hard-sigmoid, not 'gelu'"):
        SqueezeExcite(16, 4, activation="gelu")
