"""GC against its formula in numpy, and against timm."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.gc import POOLINGS, VARIANTS, GlobalContext
from tests.patterns.modules.checks import randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, sigmoid

MULTIPLIED, ADDED, SCALED, TIMM_ADDED = (
    tuple(f"{branch}.{layer}" for layer in layers)
    for branch, layers in (
        ("channel_mul_conv", (0, 1, 3)),
        ("channel_add_conv", (0, 1, 3)),
        ("mlp_scale", ("fc1", "norm", "fc2")),
        ("mlp_add", ("fc1", "norm", "fc2")),
    )
)
BRANCHES = {
    "official": [ADDED],
    "official-mul": [MULTIPLIED],
    "official-both": [MULTIPLIED, ADDED],
    "timm": [SCALED],
    "timm-add": [TIMM_ADDED],
    "timm-both": [SCALED, TIMM_ADDED],
}


def mask_of(variant: str) -> str:
    return "conv_attn" if "timm" in variant else "conv_mask"


def naive(x: Array, variant: str, given: State) -> Array:
    mask, y = mask_of(variant), x.copy()
    for n, image in enumerate(x):
        a = np.ones(image.shape[1:])
        if f"{mask}.weight" in given:
            logits = np.einsum("c,chw->hw", given[f"{mask}.weight"].reshape(-1), image) + given[f"{mask}.bias"]
            a = np.exp(logits - logits.max())
        context = (image * (a / a.sum())).sum((1, 2))
        for fc1, norm, fc2 in BRANCHES[variant]:
            z = given[f"{fc1}.weight"].reshape(-1, x.shape[1]) @ context + given[f"{fc1}.bias"]
            z = (z - z.mean()) / np.sqrt(z.var() + (1e-6 if "timm" in variant else 1e-5))
            z = np.maximum(z * given[f"{norm}.weight"].reshape(-1) + given[f"{norm}.bias"].reshape(-1), 0)
            z = given[f"{fc2}.weight"].reshape(x.shape[1], -1) @ z + given[f"{fc2}.bias"]
            y[n] = y[n] + z[:, None, None] if "add" in fc1 else y[n] * sigmoid(z)[:, None, None]
    return y


@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 20.0])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_formula(variant: str, pooling: str, magnitude: float) -> None:
    module = randomised(GlobalContext(6, 4, variant, pooling))
    x = np.random.default_rng(1).standard_normal((3, 6, 5, 8)) * magnitude
    expected = naive(x, variant, state_of(module))
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize(("variant", "scale", "add"), [("timm", 1, 0), ("timm-add", 0, 1), ("timm-both", 1, 1)])
def test_agrees_with_timm(timm_layers: ModuleType, variant: str, scale: int, add: int, attention: bool) -> None:
    from timm.layers.global_context import GlobalContext as Referee

    referee = Referee(32, use_attn=attention, rd_channels=5, fuse_add=bool(add), fuse_scale=bool(scale))
    referee = randomised(referee)
    module = GlobalContext(32, 5, variant, "attention" if attention else "average").double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-10, atol=1e-12)


def test_keys_and_shapes() -> None:
    assert shapes(GlobalContext(32, 2)) == {
        "conv_mask.weight": (1, 32, 1, 1),
        "conv_mask.bias": (1,),
        "channel_add_conv.0.weight": (2, 32, 1, 1),
        "channel_add_conv.0.bias": (2,),
        "channel_add_conv.1.weight": (2, 1, 1),
        "channel_add_conv.1.bias": (2, 1, 1),
        "channel_add_conv.3.weight": (32, 2, 1, 1),
        "channel_add_conv.3.bias": (32,),
    }
    assert shapes(GlobalContext(32, 2, "timm"))["mlp_scale.norm.weight"] == (2,)


def test_untrained() -> None:
    x = torch.randn(2, 16, 7, 9)
    assert torch.equal(GlobalContext(16, 4).eval()(x), x)
    torch.testing.assert_close(GlobalContext(16, 4, "official-mul").eval()(x), x / 2)
    assert 0.4 < scale(GlobalContext(64, 8, "timm"), 64) < 0.6


@pytest.mark.parametrize("variant", VARIANTS)
def test_trains(variant: str) -> None:
    """Every parameter but the mask's bias, which cancels in the softmax."""
    module = GlobalContext(8, 4, variant)
    for *_, fc2 in BRANCHES[variant]:
        torch.nn.init.normal_(module.get_parameter(f"{fc2}.weight"))
    module.get_parameter(f"{mask_of(variant)}.bias").requires_grad_(False)
    module.train()(torch.randn(4, 8, 5, 5)).square().mean().backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_the_bias_of_the_mask_cancels() -> None:
    module = randomised(GlobalContext(6, 4))
    x = torch.randn(2, 6, 5, 8, dtype=torch.float64)
    before = module(x)
    module.state_dict()["conv_mask.bias"].add_(3.0)
    torch.testing.assert_close(module(x), before, rtol=1e-11, atol=1e-13)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="variants official, official-mul"):
        GlobalContext(8, 2, "add")
    with pytest.raises(ValueError, match="at least 1"):
        GlobalContext(8, 0)
    with pytest.raises(ValueError, match="poolings attention, average, not 'avg'"):
        GlobalContext(8, 2, pooling="avg")
