"""Convolutions and norms in numpy, written from their definitions: what the twins' formulas are checked with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]


def arrays(module: torch.nn.Module) -> dict[str, Array]:
    """A module's state in float64."""
    return {key: value.detach().double().numpy() for key, value in module.state_dict().items()}


def randomised(module: torch.nn.Module, std: float = 0.5) -> torch.nn.Module:
    """The module in float64 and evaluation mode, no parameter at its first value."""
    for key, values in module.named_parameters():
        spread = std if values.ndim == 1 else std / math.sqrt(values[0].numel())
        torch.nn.init.normal_(values, mean=float(values.ndim == 1 and key.endswith("weight")), std=spread)
    return module.double().eval()


def pointwise(x: Array, state: Mapping[str, Array], name: str) -> Array:
    """A 1x1 convolution, or a linear layer on the channels of a map."""
    weight = state[f"{name}.weight"]
    y = np.einsum("oi,nihw->nohw", weight.reshape(weight.shape[:2]), x)
    bias = state.get(f"{name}.bias")
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def depthwise(x: Array, state: Mapping[str, Array], name: str, dilation: int = 1) -> Array:
    """A depthwise convolution that keeps the size, one tap at a time; what is outside of the map is 0."""
    weight = state[f"{name}.weight"]
    y = np.zeros_like(x)
    height, width = x.shape[2:]
    rows, columns = weight.shape[2:]
    for i, j in np.ndindex(rows, columns):
        down, right = dilation * (i - rows // 2), dilation * (j - columns // 2)
        for row in range(max(0, -down), min(height, height - down)):
            for column in range(max(0, -right), min(width, width - right)):
                y[:, :, row, column] += weight[:, 0, i, j] * x[:, :, row + down, column + right]
    bias = state.get(f"{name}.bias")
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def gelu(x: Array) -> Array:
    """The exact form."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def layer_norm(x: Array, weight: Array, bias: Array, axis: int, eps: float = 1e-5) -> Array:
    """Over one axis, with the population's variance."""
    shape = [1] * x.ndim
    shape[axis] = -1
    normal = (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + eps)
    return normal * weight.reshape(shape) + bias.reshape(shape)


def run(module: torch.nn.Module, x: Array) -> Array:
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(x)).numpy())


def trains(module: torch.nn.Module, x: torch.Tensor) -> None:
    """Every parameter gets a finite gradient, and a step changes the output."""
    module.train()
    module(x).square().mean().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
