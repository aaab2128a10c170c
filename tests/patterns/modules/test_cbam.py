"""CBAM against its formula in numpy, and against timm and Ultralytics."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.cbam import CBAM, VARIANTS
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, convolution, sigmoid

LAYERS = {
    "official": ("ChannelGate.mlp.1", "ChannelGate.mlp.3", "SpatialGate.spatial.conv", "SpatialGate.spatial.bn"),
    "timm": ("channel.fc1", "channel.fc2", "spatial.conv.conv", "spatial.conv.bn"),
    "yolo-port": ("channel_attention.fc1", "channel_attention.fc2", "spatial_attention.conv1", None),
    "cv-attention": ("ca.se.0", "ca.se.2", "sa.conv", None),
    "external-attention": ("ca.se.0", "ca.se.2", "sa.conv", None),
}
MAX_FIRST = ("official", "cv-attention", "external-attention")
POOLINGS = {
    "avg": lambda x: x.mean((2, 3)),
    "max": lambda x: x.max((2, 3)),
    "lp": lambda x: np.sqrt((x**2).sum((2, 3))),
    "lse": lambda x: np.log(np.exp(x).sum((2, 3))),
}


def module_of(variant: str, kernel: int = 3) -> CBAM:
    return CBAM(6, variant, None if variant == "ultralytics" else 4, kernel, bn_eps=1e-3)


def naive(x: Array, variant: str, given: State, pool_types: str = "avg+max") -> Array:
    def layer(s: Array, name: str) -> Array:
        z = np.einsum("oi,ni->no", given[f"{name}.weight"].reshape(len(given[f"{name}.weight"]), -1), s)
        logits: Array = z + given.get(f"{name}.bias", 0.0)
        return logits

    if variant == "ultralytics":
        conv, norm = "spatial_attention.cv1", None
        z = layer(x.mean((2, 3)), "channel_attention.fc")
    else:
        fc1, fc2, conv, norm = LAYERS[variant]
        pooled = [POOLINGS[kind](x) for kind in pool_types.split("+")]
        z = sum(layer(np.maximum(layer(s, fc1), 0), fc2) for s in pooled)
    original, x = x, x * sigmoid(z)[:, :, None, None]
    if f"{conv}.weight" not in given:
        return x
    planes = [x.mean(1), x.max(1)]
    f = np.stack(planes[::-1] if variant in MAX_FIRST else planes, 1)
    f = convolution(f, given[f"{conv}.weight"], given.get(f"{conv}.bias"))
    y = x * sigmoid(batch_norm(f, given, norm, 1e-3) if norm else f)
    return y + original if variant == "external-attention" else y


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("pool_types", ["avg", "max", "lp", "lse", "avg+lse", "avg+max+lp+lse"])
def test_other_poolings_agree_with_the_formula(pool_types: str, spatial: bool) -> None:
    module = randomised(CBAM(6, hidden=4, bn_eps=1e-3, pool_types=pool_types, spatial=spatial))
    x = np.random.default_rng(1).standard_normal((3, 6, 5, 8)) * 2
    expected = naive(x, "official", state_of(module), pool_types)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_formula(variant: str, kernel: int) -> None:
    module = randomised(module_of(variant, kernel))
    x = np.random.default_rng(1).standard_normal((3, 6, 5, 8)) * 2
    expected = naive(x, variant, state_of(module))
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


def test_agrees_with_timm(timm_layers: ModuleType) -> None:
    from timm.layers.cbam import CbamModule

    referee = randomised(CbamModule(32, rd_channels=3, spatial_kernel_size=5))
    module = CBAM(32, "timm", 3, 5).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kernel", [3, 7])
def test_agrees_with_ultralytics(kernel: int) -> None:
    conv = pytest.importorskip("ultralytics.nn.modules.conv")
    referee = randomised(conv.CBAM(16, kernel))
    module = CBAM(16, "ultralytics", kernel=kernel).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 16, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-11, atol=1e-13)


def test_external_attention_has_a_kernel_of_49_by_default() -> None:
    assert shapes(CBAM(64, "external-attention", 4))["sa.conv.weight"] == (1, 2, 49, 49)


def test_keys_and_shapes() -> None:
    bn = {f"SpatialGate.spatial.bn.{part}": (1,) for part in ("weight", "bias", "running_mean", "running_var")}
    assert shapes(CBAM(64, "official", 4)) == bn | {
        "ChannelGate.mlp.1.weight": (4, 64),
        "ChannelGate.mlp.1.bias": (4,),
        "ChannelGate.mlp.3.weight": (64, 4),
        "ChannelGate.mlp.3.bias": (64,),
        "SpatialGate.spatial.conv.weight": (1, 2, 7, 7),
    }
    assert shapes(CBAM(64, "cv-attention", 4)) == {
        "ca.se.0.weight": (4, 64, 1, 1),
        "ca.se.2.weight": (64, 4, 1, 1),
        "sa.conv.weight": (1, 2, 7, 7),
        "sa.conv.bias": (1,),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_trains(variant: str) -> None:
    assert_trains(module_of(variant), 6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_untrained_scale(variant: str) -> None:
    """It depends much on the draw: the spatial convolution is one, of 98 weights, and its sign decides."""
    added = 1.0 if variant == "external-attention" else 0.0
    found = np.mean([scale(CBAM(128, variant, None if variant == "ultralytics" else 8), 128) for _ in range(20)])
    assert 0.15 < found - added < 0.35


def test_identity_setting_is_bit_exact() -> None:
    module = CBAM(16, "official", 4).eval()
    given = module.state_dict()
    for key, value in (("ChannelGate.mlp.3", 20.0), ("SpatialGate.spatial.bn", 20.0)):
        given[f"{key}.weight"].zero_()
        given[f"{key}.bias"].fill_(value)
    x = 20 * torch.randn(2, 16, 9, 5)
    assert torch.equal(module(x), x)


def test_reset_parameters_draws_anew() -> None:
    module = CBAM(16, "official", 4)
    for parameter in module.parameters():
        nn.init.constant_(parameter, 9.0)
    module.reset_parameters()
    assert all((parameter != 9.0).all() for parameter in module.parameters())


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="variants official, ultralytics, timm"):
        CBAM(8, "paper", 2)
    with pytest.raises(ValueError, match="needs the hidden width"):
        CBAM(8)
    with pytest.raises(ValueError, match="odd kernel"):
        CBAM(8, "timm", 2, 4)
    with pytest.raises(ValueError, match="at least 1"):
        CBAM(8, "timm", 0)
    with pytest.raises(ValueError, match="neither other poolings nor the channel part alone"):
        CBAM(8, "timm", 2, spatial=False)
    with pytest.raises(ValueError, match=r"the poolings avg, max, lp, lse, not 'sum'"):
        CBAM(8, hidden=2, pool_types="sum")
