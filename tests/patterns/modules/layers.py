"""Layers in numpy, float64, written from their definitions: what the modules' formulas are checked with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
State = Mapping[str, Array]


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    y: Array = 1 / (1 + np.exp(-x))
    return y


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def gelu(x: Array) -> Array:
    """The exact form."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


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


def layer_norm(x: Array, weight: Array, bias: Array, axis: int, eps: float = 1e-5) -> Array:
    """Over one axis, with the population's variance."""
    shape = [1] * x.ndim
    shape[axis] = -1
    normal = (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + eps)
    return normal * weight.reshape(shape) + bias.reshape(shape)


def pointwise(x: Array, state: State, name: str) -> Array:
    """A 1x1 convolution, or a linear layer on the channels of a map."""
    weight = state[f"{name}.weight"]
    y = np.einsum("oi,nihw->nohw", weight.reshape(weight.shape[:2]), x)
    bias = state.get(f"{name}.bias")
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def depthwise(x: Array, state: State, name: str, dilation: int = 1) -> Array:
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
