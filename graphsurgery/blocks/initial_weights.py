"""Shapes of the parameters that layers have in PyTorch, and the weights that they begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SATURATED = 40.0
"""Its sigmoid is exactly 1 in every element type; float64 needs 37 for that, float32 17."""


def layer_shapes(layers: Mapping[str, tuple[int, ...]], *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of convolutions, linear layers and normalisations, each with its bias.

    Parameters
    ----------
    layers:
        Prefix -> shape of the weight, whose first axis is that of the bias.
    bias:
        Whether they have biases.

    Examples
    --------
    >>> layer_shapes({"fc": (4, 8)})
    {'fc.weight': (4, 8), 'fc.bias': (4,)}
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, shape in layers.items():
        shapes |= {f"{prefix}.weight": shape} | ({f"{prefix}.bias": shape[:1]} if bias else {})
    return shapes


def bn_shapes(prefix: str, count: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an evaluated BatchNorm over ``count`` channels."""
    return {f"{prefix}.{part}": (count,) for part in ("weight", "bias", "running_mean", "running_var")}


def uniform_fan_in(rng: np.random.Generator, shape: Sequence[int], fan_in: int) -> Array:
    """torch's default for convolutions and linear layers: uniform within 1 / sqrt(fan_in)."""
    bound = 1.0 / np.sqrt(fan_in)
    return rng.uniform(-bound, bound, size=tuple(shape)).astype(np.float32)


def torch_default(shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, Array]:
    """What torch's constructors give: convolutions and linear layers uniform by fan-in, normalisations 1 and 0.

    Parameters
    ----------
    shapes:
        Key -> shape, with ``<layer>.weight`` for every layer: of rank 1 for a normalisation.
    rng:
        Draws the values of the layers, in the order of ``shapes``.

    Returns
    -------
    dict[str, Array]
        Key -> float32 values.

    Raises
    ------
    KeyError
        For a parameter that belongs to no layer.
    """
    values: dict[str, Array] = {}
    for key, shape in shapes.items():
        weight = shapes[f"{key.rpartition('.')[0]}.weight"]
        if len(weight) > 1:
            values[key] = uniform_fan_in(rng, shape, int(np.prod(weight[1:])))
        else:
            values[key] = np.full(shape, float(key.endswith((".weight", ".running_var"))), np.float32)
    return values
