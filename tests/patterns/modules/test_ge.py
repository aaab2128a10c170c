"""Gather-Excite against its formula in numpy, and against timm where timm's form is the published one."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.ge import GatherExcite
from tests.patterns.modules.checks import state_of

SIZES = [(13, 13), (20, 20), (21, 21), (40, 40), (13, 20), (40, 21), (5, 3)]
SMALL = [(13, 13), (20, 20), (21, 13)]
CHANNELS = 5


def naive_pool(x: np.ndarray, extent: int) -> np.ndarray:
    """Mean over the positions of the map inside a window of 2*extent-1, every `extent` positions; 0: over all."""
    batch, channels, height, width = x.shape
    if extent == 0:
        return x.reshape(batch, channels, -1).sum(axis=2).reshape(batch, channels, 1, 1) / (height * width)
    g = np.empty((batch, channels, -(-height // extent), -(-width // extent)))
    for i, j in np.ndindex(*g.shape[2:]):
        top, left = i * extent - (extent - 1), j * extent - (extent - 1)
        window = x[:, :, max(0, top) : top + 2 * extent - 1, max(0, left) : left + 2 * extent - 1]
        g[:, :, i, j] = window.sum(axis=(2, 3)) / (window.shape[2] * window.shape[3])
    return g


def naive_depthwise(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Depthwise 3x3 convolution of stride 2 with one row and column of zeros around the map."""
    batch, channels, height, width = x.shape
    padded = np.zeros((batch, channels, height + 2, width + 2))
    padded[:, :, 1:-1, 1:-1] = x
    g = np.empty((batch, channels, -(-height // 2), -(-width // 2)))
    for i, j in np.ndindex(*g.shape[2:]):
        g[:, :, i, j] = (padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weight[:, 0]).sum(axis=(2, 3))
    return g


def naive_norm(x: np.ndarray, state: dict[str, np.ndarray], prefix: str, eps: float) -> np.ndarray:
    def column(name: str) -> np.ndarray:
        return state[f"{prefix}.{name}"].reshape(1, -1, 1, 1)

    return (x - column("running_mean")) / np.sqrt(column("running_var") + eps) * column("weight") + column("bias")


def naive_up(z: np.ndarray, height: int, width: int) -> np.ndarray:
    y = np.empty((*z.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        y[:, :, i, j] = z[:, :, i * z.shape[2] // height, j * z.shape[3] // width]
    return y


def naive(x: np.ndarray, variant: str, extent: int, state: dict[str, np.ndarray], eps: float = 1e-5) -> np.ndarray:
    """The whole block as the paper's figures and prototxts draw it, in float64."""
    if variant == "theta-minus":
        g = naive_pool(x, extent)
    elif extent == 0:
        g = (x * state["gather.conv1.weight"][:, 0]).sum(axis=(2, 3), keepdims=True)
        g = naive_norm(g, state, "gather.norm1", eps)
    else:
        g, stages = x, {2: 1, 4: 2, 8: 3}[extent]
        for stage in range(1, stages + 1):
            g = naive_depthwise(g, state[f"gather.conv{stage}.weight"])
            g = naive_norm(g, state, f"gather.norm{stage}", eps)
            g = np.maximum(g, 0) if stage < stages else g
    if variant == "theta-plus":
        g = np.maximum(g, 0)
        g = np.einsum("rc,nchw->nrhw", state["mlp.fc1.weight"][:, :, 0, 0], g) + state["mlp.fc1.bias"][:, None, None]
        g = np.maximum(g, 0)
        g = np.einsum("cr,nrhw->nchw", state["mlp.fc2.weight"][:, :, 0, 0], g) + state["mlp.fc2.bias"][:, None, None]
    return x / (1 + np.exp(-naive_up(g, *x.shape[2:])))


def randomised(module: nn.Module) -> nn.Module:
    """The module in float64 and evaluation mode, with parameters and statistics of ordinary size.

    Shifts are mostly positive, so that some values pass every ReLU and some do not.
    """
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif key.endswith("bias"):
            value.normal_(mean=0.5, std=0.7)
        elif value.is_floating_point():
            value.normal_(std=0.7)
    return module.double().eval()


def build(variant: str, extent: int, size: tuple[int, int] = (13, 13), bn_eps: float = 1e-5) -> GatherExcite:
    hidden = 8 if variant == "theta-plus" else None
    return GatherExcite(CHANNELS, variant, extent, size=size, hidden=hidden, bn_eps=bn_eps)


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("size", SIZES)
def test_theta_minus_agrees_with_the_formula(size: tuple[int, int], extent: int) -> None:
    x = torch.randn(2, CHANNELS, *size, dtype=torch.float64) + 0.3
    y = GatherExcite(CHANNELS, extent=extent).eval()(x)
    np.testing.assert_allclose(y.numpy(), naive(x.numpy(), "theta-minus", extent, {}), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("variant", ["theta", "theta-plus"])
@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("size", SMALL)
def test_learned_gathers_agree_with_the_formula(size: tuple[int, int], extent: int, variant: str) -> None:
    module = randomised(build(variant, extent, size))
    x = torch.randn(2, CHANNELS, *size, dtype=torch.float64)
    y = module(x).detach().numpy()
    np.testing.assert_allclose(y, naive(x.numpy(), variant, extent, state_of(module)), rtol=1e-11, atol=1e-13)
    gate = y / x.numpy()
    assert np.abs(gate[0] - gate[1]).max() > 1e-3, "a gate that does not depend on the input tests nothing"


def naive_timm(x: np.ndarray, extent: int, state: dict[str, np.ndarray], *, add_maxpool: bool = False) -> np.ndarray:
    """timm's class up to 1.0.20: what it has follows from the state."""
    if "gather.conv1.weight" not in state:
        g = naive_pool(x, extent)
        g = (g + naive_largest(x, extent)) / 2 if add_maxpool else g
    elif extent == 0:
        weight = state["gather.conv1.weight"][:, 0]
        (height, width), (rows, columns) = x.shape[2:], ((side - 1) // 2 for side in x.shape[2:])
        padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
        g = np.empty((*x.shape[:2], 2 * rows + 1, 2 * columns + 1))
        for i, j in np.ndindex(*g.shape[2:]):
            g[:, :, i, j] = (padded[:, :, i : i + height, j : j + width] * weight).sum(axis=(2, 3))
        g = naive_norm(g, state, "gather.norm1", 1e-5)
    else:
        g, stages = x, {2: 1, 4: 2, 8: 3}[extent]
        for stage in range(1, stages + 1):
            g = naive_norm(naive_depthwise(g, state[f"gather.conv{stage}.weight"]), state, f"gather.norm{stage}", 1e-5)
            g = np.maximum(g, 0) if stage < stages else g
    if "mlp.fc1.weight" in state:
        g = np.einsum("rc,nchw->nrhw", state["mlp.fc1.weight"][:, :, 0, 0], g) + state["mlp.fc1.bias"][:, None, None]
        g = np.einsum("cr,nrhw->nchw", state["mlp.fc2.weight"][:, :, 0, 0], np.maximum(g, 0))
        g = g + state["mlp.fc2.bias"][:, None, None]
    return x / (1 + np.exp(-naive_up(g, *x.shape[2:])))


def naive_largest(x: np.ndarray, extent: int) -> np.ndarray:
    """The maximum over the positions that naive_pool averages."""
    if extent == 0:
        return x.max(axis=(2, 3), keepdims=True)
    g = np.empty((*x.shape[:2], *(-(-side // extent) for side in x.shape[2:])))
    for i, j in np.ndindex(*g.shape[2:]):
        top, left = (max(0, n * extent - (extent - 1)) for n in (i, j))
        bottom, right = (n * extent + extent for n in (i, j))
        g[:, :, i, j] = x[:, :, top:bottom, left:right].max(axis=(2, 3))
    return g


TIMM = [
    {},
    {"add_maxpool": True},
    {"mlp": False, "add_maxpool": True},
    {"extra_params": True},
    {"extra_params": True, "mlp": False},
]


@pytest.mark.parametrize("settings", TIMM, ids=lambda settings: "+".join(settings) or "default")
@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("size", [(13, 13), (20, 20), (21, 12)])
def test_timms_class_agrees_with_its_formula(size: tuple[int, int], extent: int, settings: dict[str, bool]) -> None:
    module = randomised(GatherExcite(CHANNELS, "timm", extent, size, **settings))
    assert any(True for _ in module.parameters()) == (settings.get("mlp", True) or "extra_params" in settings)
    x = torch.randn(2, CHANNELS, *size, dtype=torch.float64)
    expected = naive_timm(x.numpy(), extent, state_of(module), add_maxpool=settings.get("add_maxpool", False))
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("variant", ["theta", "theta-plus"])
@pytest.mark.parametrize("extent", [0, 8])
def test_bn_eps_reaches_every_norm(extent: int, variant: str) -> None:
    module = randomised(build(variant, extent, bn_eps=1e-1))
    x = torch.randn(1, CHANNELS, 13, 13, dtype=torch.float64)
    y = module(x).detach().numpy()
    np.testing.assert_allclose(y, naive(x.numpy(), variant, extent, state_of(module), eps=1e-1), rtol=1e-11, atol=1e-13)
    assert not np.allclose(y, naive(x.numpy(), variant, extent, state_of(module)), rtol=1e-4)


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("size", SIZES)
def test_theta_minus_agrees_with_timm(timm_layers: ModuleType, size: tuple[int, int], extent: int) -> None:
    # timm 1.0.21 and later can only build this configuration; the others are checked against numpy above.
    referee = timm_layers.GatherExcite(CHANNELS, extra_params=False, extent=extent, use_mlp=False).eval()
    x = torch.randn(2, CHANNELS, *size, dtype=torch.float64) + 0.3
    torch.testing.assert_close(GatherExcite(CHANNELS, extent=extent).eval()(x), referee(x), rtol=1e-13, atol=1e-15)


def norm_shapes(stage: int, channels: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    shapes: dict[str, tuple[int, ...]] = {f"gather.norm{stage}.{name}": (channels,) for name in names}
    return shapes | {f"gather.norm{stage}.num_batches_tracked": ()}


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("variant", ["theta-minus", "theta", "theta-plus"])
def test_keys_and_shapes(variant: str, extent: int) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    if variant != "theta-minus":
        for stage in range(1, {0: 1, 2: 1, 4: 2, 8: 3}[extent] + 1):
            kernel = (7, 9) if extent == 0 else (3, 3)
            expected |= {f"gather.conv{stage}.weight": (40, 1, *kernel)} | norm_shapes(stage, 40)
    if variant == "theta-plus":
        expected |= {"mlp.fc1.weight": (3, 40, 1, 1), "mlp.fc1.bias": (3,)}
        expected |= {"mlp.fc2.weight": (40, 3, 1, 1), "mlp.fc2.bias": (40,)}
    module = GatherExcite(40, variant, extent, size=(7, 9))
    assert {key: tuple(value.shape) for key, value in module.state_dict().items()} == expected


@pytest.mark.parametrize(("channels", "hidden"), [(4, 1), (16, 1), (23, 1), (24, 2), (40, 3), (64, 4), (256, 16)])
def test_default_hidden_width_rounds_half_up(channels: int, hidden: int) -> None:
    module = GatherExcite(channels, "theta-plus", 2)
    assert module.state_dict()["mlp.fc1.weight"].shape[0] == hidden


def test_theta_plus_starts_as_published() -> None:
    module = GatherExcite(512, "theta-plus", 2, hidden=64)
    state = module.state_dict()
    for name in ("mlp.fc1", "mlp.fc2"):
        assert not state[f"{name}.bias"].any()
        weight = state[f"{name}.weight"]
        assert abs(weight.std().item() - 0.01) < 5e-4
        assert weight.abs().max().item() > 0.03, "a uniform distribution of this deviation ends at 0.0173"
    assert torch.equal(state["gather.norm1.weight"], torch.ones(512))


def test_reset_parameters_draws_everything_anew() -> None:
    fresh, module = GatherExcite(8, "theta-plus", 4), GatherExcite(8, "theta-plus", 4)
    for value in module.state_dict().values():
        value.fill_(9)
    for each in (fresh, module):
        torch.manual_seed(5)
        each.reset_parameters()
    for key, value in fresh.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key
        assert value.abs().max() < 9, key


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("variant", ["theta", "theta-plus"])
def test_identity_setting_is_bit_exact(variant: str, extent: int) -> None:
    module = build(variant, extent, (20, 20)).eval()
    state = module.state_dict()
    if variant == "theta":
        last = {0: 1, 2: 1, 4: 2, 8: 3}[extent]
        state[f"gather.norm{last}.weight"].zero_()
        state[f"gather.norm{last}.bias"].fill_(20.0)
    else:
        state["mlp.fc2.weight"].zero_()
        state["mlp.fc2.bias"].fill_(20.0)
    x = 20 * torch.randn(2, CHANNELS, 20, 20)
    assert torch.equal(module(x), x)


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("variant", ["theta", "theta-plus"])
def test_training_mode(variant: str, extent: int) -> None:
    module = build(variant, extent).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module(torch.randn(6, CHANNELS, 13, 13) + 0.5).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for key, value in module.state_dict().items():
        if "running" in key or "tracked" in key:
            assert not torch.equal(value, before[key]), key


@pytest.mark.parametrize("variant", ["theta", "theta-plus"])
def test_training_mode_normalises_with_the_batch(variant: str) -> None:
    module = randomised(build(variant, 2)).train()
    x = torch.randn(3, CHANNELS, 13, 13, dtype=torch.float64)
    state = state_of(module)
    g = naive_depthwise(x.numpy(), state["gather.conv1.weight"])
    state |= {"gather.norm1.running_mean": g.mean(axis=(0, 2, 3)), "gather.norm1.running_var": g.var(axis=(0, 2, 3))}
    y = module(x).detach().numpy()
    np.testing.assert_allclose(y, naive(x.numpy(), variant, 2, state), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "theta+"}, "variants theta-minus, theta, theta-plus, timm"),
        ({"variant": "timm", "extra_params": True}, "needs the size"),
        ({"variant": "timm", "extra_params": True, "extent": 2, "add_maxpool": True}, "poolings of timm only"),
        ({"add_maxpool": True}, "poolings of timm only"),
        ({"extent": 3}, "extents 0"),
        ({"extent": 16}, "extents 0"),
        ({"variant": "theta"}, "needs the size"),
        ({"variant": "theta-plus"}, "needs the size"),
        ({"variant": "theta", "extent": 2, "hidden": 4}, "only theta-plus"),
        ({"variant": "theta-plus", "extent": 2, "hidden": 0}, "at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatherExcite(16, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(21, 20), (19, 20), (10, 10)])
def test_a_map_of_another_size_is_refused_by_the_global_gather(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="made for maps of 20x20"):
        build("theta", 0, (20, 20)).eval()(torch.zeros(1, CHANNELS, *size))
