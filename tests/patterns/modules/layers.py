"""Layers written out in numpy, float64, and what else the tests of the gates share."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
Array = np.ndarray[Any, Any]
State = dict[str, Array]


def randomised(module: Module) -> Module:
    """The module in float64, evaluation mode, with scales of both signs and statistics far from 0 and 1."""
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.3, 2.0)
        elif value.is_floating_point():
            value.normal_(std=0.7)
    return module.double().eval()


def state(module: nn.Module) -> State:
    """A copy of its state in numpy."""
    return {key: value.numpy().copy() for key, value in module.state_dict().items()}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Key -> shape of everything but the counters of the BatchNorms."""
    return {k: tuple(v.shape) for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    y: Array = 1 / (1 + np.exp(-x))
    return y


def batch_norm(x: Array, given: State, prefix: str, eps: float) -> Array:
    """Evaluated, over axis 1."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, var, weight, bias = (
        given[f"{prefix}.{part}"].reshape(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    y: Array = (x - mean) / np.sqrt(var + eps) * weight + bias
    return y


def group_norm(x: Array, groups: int, given: State, prefix: str) -> Array:
    """Over groups of channels and all positions, eps 1e-5."""
    y = np.empty_like(x)
    size = x.shape[1] // groups
    for n, g in np.ndindex(x.shape[0], groups):
        part = x[n, g * size : (g + 1) * size]
        y[n, g * size : (g + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    shape = (1, -1, *[1] * (x.ndim - 2))
    normal: Array = y * given[f"{prefix}.weight"].reshape(shape) + given[f"{prefix}.bias"].reshape(shape)
    return normal


def convolution(x: Array, weight: Array, bias: Array | None = None, groups: int = 1) -> Array:
    """[N, C, H, W] with zeros around it, stride 1, odd kernels, the same size: position after position."""
    (kernel_h, kernel_w), (height, width) = weight.shape[2:], x.shape[2:]
    top, left = kernel_h // 2, kernel_w // 2
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    y: Array = np.zeros((x.shape[0], weight.shape[0], height, width))
    for o, i, j in np.ndindex(weight.shape[0], height, width):
        first = o // outputs * inputs
        window = padded[:, first : first + inputs, i : i + kernel_h, j : j + kernel_w]
        y[:, o, i, j] = (window * weight[o]).sum(axis=(1, 2, 3))
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def assert_trains(module: nn.Module, channels: int, size: tuple[int, int] = (8, 9)) -> None:
    """In training mode every parameter gets a finite gradient, and not all of it is zero."""
    module = module.double().train()
    x = torch.randn(4, channels, *size, dtype=torch.float64)
    module(x).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def scale(module: nn.Module, channels: int) -> float:
    """Norm of the result over that of the input, for what follows a SiLU."""
    x = nn.functional.silu(torch.randn(2, channels, 20, 20))
    with torch.no_grad():
        return float(module.eval()(x).norm() / x.norm())
