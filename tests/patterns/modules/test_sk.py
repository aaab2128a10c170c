"""SK against its formula in numpy, and against timm."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.sk import VARIANTS, SelectiveKernel
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, convolution

EPS = 1e-3


def dilated(weight: Array) -> Array:
    """A 3x3 kernel of dilation 2 as a 5x5 one with zeros."""
    wide = np.zeros((*weight.shape[:2], 5, 5))
    wide[:, :, ::2, ::2] = weight
    return wide


def paths(x: Array, variant: str, given: State) -> list[Array]:
    """What each path makes of x, after its ReLU. Paths that are grouped have two groups."""
    if variant == "paper":
        second = dilated(given["convs.1.0.weight"])
        convolved = [convolution(x, each, groups=2) for each in (given["convs.0.0.weight"], second)]
        norms = ["convs.0.1", "convs.1.1"]
    elif variant == "official":
        convolved = [convolution(x, given["conv2.weight"]), convolution(x, given["conv2g.weight"], groups=2)]
        norms = ["bn2", "bn2g"]
    elif variant == "timm":
        first, second = given["paths.0.conv.weight"], dilated(given["paths.1.conv.weight"])
        split = first.shape[1] * 4 == x.shape[1]
        half = x.shape[1] // 2
        parts = (x[:, :half], x[:, half:]) if split else (x, x)
        convolved = [convolution(part, each, groups=2) for part, each in zip(parts, (first, second), strict=True)]
        norms = ["paths.0.bn", "paths.1.bn"]
    else:
        layers = [key.removesuffix(".conv.weight") for key in given if key.endswith(".conv.weight")]
        convolved = [convolution(x, given[f"{a}.conv.weight"], given[f"{a}.conv.bias"], groups=2) for a in layers]
        norms = [f"{a}.bn" for a in layers]
    return [np.maximum(batch_norm(d, given, norm, EPS), 0) for d, norm in zip(convolved, norms, strict=True)]


def naive(x: Array, variant: str, given: State) -> Array:
    def layer(s: Array, name: str) -> Array:
        weight = given[f"{name}.weight"]
        return s @ weight.reshape(len(weight), -1).T + given.get(f"{name}.bias", 0.0)

    d = paths(x, variant, given)
    s = sum(each.mean((2, 3)) for each in d)
    if variant == "external-attention":
        z = [layer(layer(s, "fc"), f"fcs.{i}") for i in range(len(d))]
    else:
        reduce, norm, *select = {
            "paper": ("fc.0", "fc.1", "fcs.0", "fcs.1"),
            "official": ("conv_fc1", "bn_fc1", "conv_fc2"),
            "timm": ("attn.fc_reduce", "attn.bn", "attn.fc_select"),
        }[variant]
        hidden = np.maximum(batch_norm(layer(s, reduce), given, norm, EPS), 0)
        z = np.split(np.concatenate([layer(hidden, each) for each in select], axis=1), 2, axis=1)
    e = [np.exp(each - np.max(z, axis=0)) for each in z]
    y: Array = sum(each * (share / sum(e))[:, :, None, None] for each, share in zip(d, e, strict=True))
    return y


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        *((variant, {}) for variant in VARIANTS),
        ("paper", {"bias": True}),
        ("timm", {"split": False}),
        *(("external-attention", {"kernels": kernels}) for kernels in ("3,5", "1,3,9")),
    ],
)
def test_agrees_with_the_formula(variant: str, settings: dict[str, Any]) -> None:
    module = randomised(SelectiveKernel(8, 3, variant, groups=2, bn_eps=EPS, **settings))
    x = np.random.default_rng(1).standard_normal((2, 8, 5, 9))
    expected = naive(x, variant, state_of(module))
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("split", "groups"), [(True, 1), (True, 4), (False, 32)])
def test_agrees_with_timm(timm_layers: ModuleType, split: bool, groups: int) -> None:
    referee = randomised(timm_layers.SelectiveKernel(32, split_input=split, groups=groups))
    module = SelectiveKernel(32, 8, "timm", groups, split=split).double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-10, atol=1e-12)


def test_keys_and_shapes() -> None:
    paper = {key: shape for key, shape in shapes(SelectiveKernel(128, 32)).items() if len(shape) > 1}
    assert paper == {
        "convs.0.0.weight": (128, 4, 3, 3),
        "convs.1.0.weight": (128, 4, 3, 3),
        "fc.0.weight": (32, 128, 1, 1),
        "fcs.0.weight": (128, 32, 1, 1),
        "fcs.1.weight": (128, 32, 1, 1),
    }
    found = shapes(SelectiveKernel(64, 4, "official"))
    assert found["conv2.weight"] == (64, 64, 3, 3)
    assert found["conv2g.weight"] == (64, 2, 3, 3)
    assert found["conv_fc1.weight"] == (4, 64, 1, 1)
    assert found["conv_fc2.weight"] == (128, 4, 1, 1)
    assert {key.partition(".")[0] for key in found} == {
        "conv2",
        "bn2",
        "conv2g",
        "bn2g",
        "conv_fc1",
        "bn_fc1",
        "conv_fc2",
    }
    port = shapes(SelectiveKernel(64, 32, "external-attention", groups=1))
    assert [port[f"convs.{i}.conv.weight"][2] for i in range(4)] == [1, 3, 5, 7]
    assert port["fcs.3.weight"] == (64, 32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trains(variant: str) -> None:
    module = SelectiveKernel(8, 8, variant, groups=2)
    if variant == "external-attention":  # the BatchNorm behind them takes their biases away again
        for i in range(4):
            module.get_submodule(f"convs.{i}.conv").register_parameter("bias", None)
    assert_trains(module, 8)


@pytest.mark.parametrize("variant", ["paper", "official", "external-attention"])
def test_untrained_scale(variant: str) -> None:
    assert 0.15 < scale(SelectiveKernel(64, 32, variant, groups=1), 64) < 0.45


def test_reset_parameters_draws_anew() -> None:
    module = SelectiveKernel(6, 3, groups=2)
    before = {key: value.clone() for key, value in module.state_dict().items() if value.ndim > 1}
    module.reset_parameters()
    assert not any(torch.equal(module.state_dict()[key], value) for key, value in before.items())


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="variants paper, official, external-attention, timm"):
        SelectiveKernel(8, 2, "article")
    with pytest.raises(ValueError, match="cannot have 48 channels, 3 hidden, 32 groups"):
        SelectiveKernel(48, 3)
    with pytest.raises(ValueError, match="cannot have 12 channels, 3 hidden, 4 groups"):
        SelectiveKernel(12, 3, "timm", groups=4)
