"""Initial weights that layers have in PyTorch, for blocks to begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def uniform_fan_in(rng: np.random.Generator, shape: Sequence[int], fan_in: int) -> Array:
    """torch's default for convolutions and linear layers: uniform within 1 / sqrt(fan_in)."""
    bound = 1.0 / np.sqrt(fan_in)
    return rng.uniform(-bound, bound, size=tuple(shape)).astype(np.float32)


def layer_values(rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """torch's default for all convolutions and linear layers in ``shapes``: a bias has the fan-in of its weight."""
    fan_in = {key.removesuffix("weight"): int(np.prod(shape[1:])) for key, shape in shapes.items() if len(shape) > 1}
    return {key: uniform_fan_in(rng, shape, fan_in[key[: key.rfind(".") + 1]]) for key, shape in shapes.items()}


def bn_shapes(prefix: str, count: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an evaluated BatchNorm over ``count`` channels."""
    return {f"{prefix}.{part}": (count,) for part in ("weight", "bias", "running_mean", "running_var")}


def bn_values(prefix: str, count: int, weight: float = 1.0, bias: float = 0.0) -> dict[str, Array]:
    """A fresh BatchNorm: running mean 0, running variance 1."""
    values = {"weight": weight, "bias": bias, "running_mean": 0.0, "running_var": 1.0}
    return {f"{prefix}.{part}": np.full(count, value, np.float32) for part, value in values.items()}
