"""NAM against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.nam import NAM
from tests.patterns.modules.checks import state_of

CHANNELS = 5
SIZE = (4, 7)
VARIANTS = ["channel", "channel+spatial", "spatial"]
PARTS = {
    "channel": ["Channel_Att"],
    "channel+spatial": ["Channel_Att", "Spatial_Att"],
    "spatial": ["Spatial_Att"],
}
Statistics = dict[str, tuple[np.ndarray, np.ndarray]]


def naive_part(
    x: np.ndarray, state: dict[str, np.ndarray], part: str, eps: float, batch_statistics: bool, absolute: bool
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """One part, value by value; also the mean and the (population) variance that it normalised with."""
    gamma, beta, mean, variance = (
        state[f"{part}.bn2.{name}"].copy() for name in ("weight", "bias", "running_mean", "running_var")
    )
    batch, channels, height, width = x.shape

    def group(c: int, i: int, j: int) -> int:
        return c if part == "Channel_Att" else i * width + j

    if batch_statistics:
        for k in range(len(gamma)):
            members = [x[b, c, i, j] for b, c, i, j in np.ndindex(*x.shape) if group(c, i, j) == k]
            mean[k] = sum(members) / len(members)
            variance[k] = sum((member - mean[k]) ** 2 for member in members) / len(members)
    shares = np.abs(gamma) if absolute else gamma
    total = sum(shares)
    y = np.empty_like(x)
    for b, c, i, j in np.ndindex(batch, channels, height, width):
        k = group(c, i, j)
        u = gamma[k] * (x[b, c, i, j] - mean[k]) / np.sqrt(variance[k] + eps) + beta[k]
        y[b, c, i, j] = x[b, c, i, j] / (1 + np.exp(-shares[k] / total * u))
    return y, (mean, variance)


def naive(
    x: np.ndarray,
    variant: str,
    state: dict[str, np.ndarray],
    eps: float = 1e-5,
    batch_statistics: bool = False,
    absolute: bool = True,
) -> tuple[np.ndarray, Statistics]:
    statistics: Statistics = {}
    for part in PARTS[variant]:
        x, statistics[part] = naive_part(x, state, part, eps, batch_statistics, absolute)
    return x, statistics


def randomised(module: NAM) -> NAM:
    """The module in float64 with scales of both signs and statistics far from 0 and 1; shifts that move the gate."""
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.3, 2.0)
        elif key.endswith("bias"):
            value.normal_(std=4.0)
        elif value.is_floating_point():
            value.normal_(std=1.0)
    return module.double()


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("bn_eps", [1e-5, 1e-3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_formula(variant: str, bn_eps: float, absolute: bool) -> None:
    module = randomised(NAM(CHANNELS, variant, SIZE, bn_eps=bn_eps, absolute=absolute)).eval()
    x = torch.randn(3, CHANNELS, *SIZE, dtype=torch.float64)
    state = state_of(module)
    assert (state[f"{PARTS[variant][0]}.bn2.weight"] < 0).any(), (
        "without a negative scale the absolute value is not tested"
    )
    y, _ = naive(x.numpy(), variant, state, bn_eps, absolute=absolute)
    np.testing.assert_allclose(module(x).detach().numpy(), y, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_mode_uses_and_keeps_the_statistics_of_the_batch(variant: str) -> None:
    module = randomised(NAM(CHANNELS, variant, SIZE)).train()
    x = torch.randn(3, CHANNELS, *SIZE, dtype=torch.float64) + 0.5
    before = state_of(module)
    expected, statistics = naive(x.numpy(), variant, before, batch_statistics=True)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-11, atol=1e-13)
    after = state_of(module)
    for part, (mean, variance) in statistics.items():
        count = x.numel() / len(mean)
        for name, batch in (("running_mean", mean), ("running_var", variance * count / (count - 1))):
            key = f"{part}.bn2.{name}"
            np.testing.assert_allclose(after[key], 0.9 * before[key] + 0.1 * batch, rtol=1e-11, atol=1e-13)
        assert after[f"{part}.bn2.num_batches_tracked"] == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_mode_gives_every_parameter_a_gradient(variant: str) -> None:
    module = randomised(NAM(CHANNELS, variant, SIZE)).train()
    module(torch.randn(4, CHANNELS, *SIZE, dtype=torch.float64)).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_no_gradient_flows_through_the_weights() -> None:
    """As published: d y / d gamma takes w as a constant, so it is what the formula gives with w frozen."""
    module = randomised(NAM(CHANNELS)).eval()
    norm = module.Channel_Att.bn2
    x = torch.randn(2, CHANNELS, *SIZE, dtype=torch.float64)
    module(x).sum().backward()
    gamma = norm.weight.detach().clone().requires_grad_()
    w = (gamma.detach().abs() / gamma.detach().abs().sum()).reshape(1, -1, 1, 1)
    u = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, gamma, norm.bias.detach(), eps=1e-5)
    (x * torch.sigmoid(w * u)).sum().backward()
    torch.testing.assert_close(norm.weight.grad, gamma.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_and_shapes(variant: str) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for part in PARTS[variant]:
        count = CHANNELS if part == "Channel_Att" else SIZE[0] * SIZE[1]
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{part}.bn2.{name}"] = (count,)
        expected[f"{part}.bn2.num_batches_tracked"] = ()
    state = NAM(CHANNELS, variant, SIZE).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity_setting_is_bit_exact(variant: str) -> None:
    module = NAM(64, variant, (20, 20)).eval()
    for part, count in (("Channel_Att", 64), ("Spatial_Att", 400)):
        if part in PARTS[variant]:
            module.state_dict()[f"{part}.bn2.weight"].fill_(1e-3)
            module.state_dict()[f"{part}.bn2.bias"].fill_(20.0 * count)
    x = 20 * torch.randn(2, 64, 20, 20)
    assert torch.equal(module(x), x)


def test_untrained_gate_is_about_a_half() -> None:
    x = torch.randn(1, 256, 20, 20)
    gate = NAM(256).eval()(x) / x
    assert 0.49 < gate.min().item() <= gate.max().item() < 0.51


def test_all_scales_zero_is_not_a_number_as_published() -> None:
    module = NAM(CHANNELS).eval()
    nn.init.zeros_(module.Channel_Att.bn2.weight)
    assert module(torch.ones(1, CHANNELS, 2, 2)).isnan().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_reset_parameters(variant: str) -> None:
    module = randomised(NAM(CHANNELS, variant, SIZE))
    module.reset_parameters()
    for key, value in NAM(CHANNELS, variant, SIZE).double().state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"variants channel, channel\+spatial, spatial, not 'pixel'"):
        NAM(8, "pixel")
    for variant in ("channel+spatial", "spatial"):
        with pytest.raises(ValueError, match="needs the size"):
            NAM(8, variant)
    with pytest.raises(ValueError, match="at least one channel"):
        NAM(0)


@pytest.mark.parametrize("size", [(7, 4), (2, 14), (4, 8)])
def test_a_map_of_another_size_is_refused_by_the_spatial_part(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="made for maps of 4x7"):
        NAM(CHANNELS, "channel+spatial", SIZE).eval()(torch.zeros(1, CHANNELS, *size))
