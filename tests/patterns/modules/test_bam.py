"""BAM against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.bam import BAM, VARIANTS
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, convolution, sigmoid

C, S = "channel_att.gate_c.gate_c", "spatial_att.gate_s.gate_s"


def names(variant: str) -> tuple[list[tuple[str, str]], str, list[tuple[str, str]], str, int]:
    """Channel layers and their norms, the last one, the same of the spatial part, and the dilation."""
    if variant == "cv-attention":
        spatial = ["reduce1", "0", "1", "2"]
        return (
            [(f"ca.ca.fc{i}", f"ca.ca.bn{i}") for i in range(3)],
            "ca.ca.last_fc",
            [(f"sa.sa.conv_{i}", f"sa.sa.bn_{i}") for i in spatial],
            "sa.sa.last_conv",
            2,
        )
    spatial = ["reduce0", "di_0", "di_1"]
    return (
        [(f"{C}_fc_0", f"{C}_bn_1")],
        f"{C}_fc_final",
        [(f"{S}_conv_{i}", f"{S}_bn_{i}") for i in spatial],
        f"{S}_conv_final",
        4,
    )


def dilated(weight: Array, dilation: int) -> Array:
    """The same kernel with zeros between its values."""
    if weight.shape[2] == 1:
        return weight
    wide = np.zeros((*weight.shape[:2], 2 * dilation + 1, 2 * dilation + 1))
    wide[:, :, ::dilation, ::dilation] = weight
    return wide


def naive(x: Array, variant: str, given: State, eps: float) -> Array:
    channel, channel_last, spatial, spatial_last, dilation = names(variant)
    c = x.mean((2, 3))
    for layer, norm in channel:
        c = c @ given[f"{layer}.weight"].T + given[f"{layer}.bias"]
        c = np.maximum(batch_norm(c, given, norm, 1e-5), 0)
    c = (c @ given[f"{channel_last}.weight"].T + given[f"{channel_last}.bias"])[:, :, None, None]
    s = x
    for layer, norm in spatial:
        s = convolution(s, dilated(given[f"{layer}.weight"], dilation), given[f"{layer}.bias"])
        s = np.maximum(batch_norm(s, given, norm, eps), 0)
    s = convolution(s, given[f"{spatial_last}.weight"], given[f"{spatial_last}.bias"])
    y: Array = x + x * sigmoid(c * s if variant == "official" else c + s)
    return y


@pytest.mark.parametrize("eps", [1e-5, 1e-1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_formula(variant: str, eps: float) -> None:
    """Also in that the BatchNorms of the channel part keep 1e-5, whatever the others have."""
    module = randomised(BAM(6, 3, variant, bn_eps=eps))
    x = np.random.default_rng(1).standard_normal((2, 6, 5, 9)) * 2
    expected = naive(x, variant, state_of(module), eps)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


def test_keys_and_shapes() -> None:
    found = shapes(BAM(32, 2))
    assert found[f"{C}_fc_0.weight"] == (2, 32)
    assert found[f"{C}_bn_1.running_var"] == (2,)
    assert found[f"{S}_conv_di_1.weight"] == (2, 2, 3, 3)
    assert found[f"{S}_conv_final.weight"] == (1, 2, 1, 1)
    assert len(found) == 8 + 3 * 6 + 2
    port = shapes(BAM(32, 2, "cv-attention"))
    assert port["ca.ca.fc2.weight"] == (2, 2)
    assert port["sa.sa.conv_reduce1.weight"] == (2, 32, 1, 1)
    assert port["sa.sa.bn_2.bias"] == (2,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trains_and_starts_at_one_and_a_half(variant: str) -> None:
    assert_trains(BAM(8, 4, variant), 8)
    assert 1.4 < np.mean([scale(BAM(64, 4, variant), 64) for _ in range(5)]) < 1.6


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity_setting_is_bit_exact(variant: str) -> None:
    module = BAM(16, 2, variant).eval()
    _, channel, _, spatial, _ = names(variant)
    given = module.state_dict()
    for name, bias in ((channel, -40.0), (spatial, 1.0 if variant == "official" else -40.0)):
        given[f"{name}.weight"].zero_()
        given[f"{name}.bias"].fill_(bias)
    x = 20 * torch.randn(2, 16, 9, 5)
    assert torch.equal(module(x), x)
    module.reset_parameters()
    assert not torch.equal(module(x), x)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="variants official, paper"):
        BAM(8, 2, "sum")
    with pytest.raises(ValueError, match="at least 1"):
        BAM(8, 0)
