"""Names for packages that were written when this module held them: see graphsurgery.blocks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from .blocks import SATURATED, Array, Block, Setting
from .blocks.initial_weights import bn_shapes, torch_default, uniform_fan_in
from .blocks.registry import all_blocks, block_class
from .userblocks import make_block

__all__ = [
    "SATURATED",
    "Array",
    "Block",
    "Setting",
    "all_blocks",
    "block_class",
    "bn_shapes",
    "bn_values",
    "layer_values",
    "make_block",
    "uniform_fan_in",
]

warnings.warn("graphsurgery.block is graphsurgery.blocks now", DeprecationWarning, stacklevel=2)


def layer_values(rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """torch's default for all convolutions and linear layers in ``shapes``."""
    return torch_default(shapes, rng)


def bn_values(prefix: str, count: int, weight: float = 1.0, bias: float = 0.0) -> dict[str, Array]:
    """A fresh BatchNorm: running mean 0, running variance 1."""
    values = {"weight": weight, "bias": bias, "running_mean": 0.0, "running_var": 1.0}
    return {f"{prefix}.{part}": np.full(count, value, np.float32) for part, value in values.items()}
