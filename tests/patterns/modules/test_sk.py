"""SK against its formula in numpy, and against timm."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.sk import VARIANTS, SelectiveKernel
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, convolution

EPS = 1e-3


def paths(x: Array, variant: str, given: State) -> list[Array]:
    """What each path makes of x, after its ReLU."""
    if variant == "official":
        convolved = [convolution(x, given["conv2.weight"]), convolution(x, given["conv2g.weight"], groups=2)]
        norms = ["bn2", "bn2g"]
    elif variant == "timm":
        wide = np.zeros((*given["paths.1.conv.weight"].shape[:2], 5, 5))
        wide[:, :, ::2, ::2] = given["paths.1.conv.weight"]
        half = x.shape[1] // 2
        convolved = [convolution(x[:, :half], given["paths.0.conv.weight"]), convolution(x[:, half:], wide)]
        norms = ["paths.0.bn", "paths.1.bn"]
    else:
        convolved = [
            convolution(x, given[f"convs.{i}.conv.weight"], given[f"convs.{i}.conv.bias"], groups=2) for i in range(4)
        ]
        norms = [f"convs.{i}.bn" for i in range(4)]
    return [np.maximum(batch_norm(d, given, norm, EPS), 0) for d, norm in zip(convolved, norms, strict=True)]


def naive(x: Array, variant: str, given: State) -> Array:
    def layer(s: Array, name: str) -> Array:
        weight = given[f"{name}.weight"]
        return s @ weight.reshape(len(weight), -1).T + given.get(f"{name}.bias", 0.0)

    d = paths(x, variant, given)
    s = sum(each.mean((2, 3)) for each in d)
    if variant == "external-attention":
        z = [layer(layer(s, "fc"), f"fcs.{i}") for i in range(4)]
    else:
        names = ("conv_fc1", "bn_fc1", "conv_fc2")
        reduce, norm, select = names if variant == "official" else ("attn.fc_reduce", "attn.bn", "attn.fc_select")
        z = np.split(layer(np.maximum(batch_norm(layer(s, reduce), given, norm, EPS), 0), select), 2, axis=1)
    e = [np.exp(each - np.max(z, axis=0)) for each in z]
    y: Array = sum(each * (share / sum(e))[:, :, None, None] for each, share in zip(d, e, strict=True))
    return y


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_formula(variant: str) -> None:
    module = randomised(SelectiveKernel(6, 3, variant, groups=2, bn_eps=EPS))
    x = np.random.default_rng(1).standard_normal((2, 6, 5, 8))
    expected = naive(x, variant, state_of(module))
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_agrees_with_timm(timm_layers: ModuleType) -> None:
    referee = randomised(timm_layers.SelectiveKernel(32))
    module = SelectiveKernel(32, 8, "timm").double().eval()
    module.load_state_dict(referee.state_dict(), strict=True)
    x = torch.randn(2, 32, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(module(x), referee(x), rtol=1e-10, atol=1e-12)


def test_keys_and_shapes() -> None:
    found = shapes(SelectiveKernel(64, 4))
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
    module = SelectiveKernel(6, 8, variant, groups=2)
    if variant == "external-attention":  # the BatchNorm behind them takes their biases away again
        for i in range(4):
            module.get_submodule(f"convs.{i}.conv").register_parameter("bias", None)
    assert_trains(module, 6)


@pytest.mark.parametrize("variant", ["official", "external-attention"])
def test_untrained_scale(variant: str) -> None:
    assert 0.15 < scale(SelectiveKernel(64, 32, variant, groups=1), 64) < 0.45


def test_reset_parameters_draws_anew() -> None:
    module = SelectiveKernel(6, 3, groups=2)
    before = module.conv2.weight.clone()
    module.reset_parameters()
    assert not torch.equal(module.conv2.weight, before)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="variants official, external-attention, timm"):
        SelectiveKernel(8, 2, "paper")
    with pytest.raises(ValueError, match="cannot have 48 channels, 3 hidden, 32 groups"):
        SelectiveKernel(48, 3)
