"""The inputs that a block is compared on.

Blocks fail at different sizes of the signal: SimAM's lambda counts only where the variance is near 1e-4, float16
overflows above 250 squared, epsilons show near zero, a sigmoid saturates far from it. So every seed is used at four
magnitudes (that of the largest value; the standard deviation is about a quarter of it), and there are two constant
inputs, on which every variance is zero.

Each channel has a mean of its own: with the same mean everywhere the pooled vector would be close to zero, and a block
that mixes up its channels could pass. The means do not grow beyond one with the magnitude, since a gate in half
precision loses digits with the size of what goes into its sigmoid, however it is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..feature_map import Array, Dimension

MAGNITUDES = (1e-3, 1e-1, 1.0, 20.0)
CONSTANTS = (0.0, 0.7)
BATCHES = (1, 3, 1)
"""For a dynamic batch, taken in turn with SIZES."""
SIZES = ((20, 20), (13, 21), (40, 28))
"""(height, width) for dynamic ones: square, odd and not square, even and not square."""


@dataclass(frozen=True)
class Case:
    """One input: ``array`` [N, C, H, W] in the site's element type."""

    name: str
    array: Array
    usual: bool = False
    """Whether it is the one of each shape that random weights are compared on: the first seed at magnitude 1."""


def cases(shape: Sequence[Dimension], dtype: np.dtype[Any], seeds: int = 3) -> Iterator[Case]:
    """The inputs for a site of this shape, always the same ones.

    ``shape``: [N, C, H, W], where N, H and W may be dynamic (a name or None). The first of the shapes that come out
    of it is used with every seed, the others with one seed each, all of them at every magnitude and every constant.
    """
    for turn, concrete in enumerate(concrete_shapes(shape)):
        label = "x".join(str(size) for size in concrete)
        for seed in range(seeds) if turn == 0 else (seeds + turn,):
            noise, means = _signal(concrete, seed)
            for magnitude in MAGNITUDES:
                array = (noise * magnitude + means * min(magnitude / 4, 1.0)).astype(dtype)
                usual = magnitude == 1.0 and seed in (0, seeds + turn)
                yield Case(f"seed {seed}, magnitude {magnitude:g}, {label}", array, usual)
        for constant in CONSTANTS:
            yield Case(f"constant {constant:g}, {label}", np.full(concrete, constant, dtype))


def concrete_shapes(shape: Sequence[Dimension]) -> list[tuple[int, int, int, int]]:
    """The shapes to try for a site: one if it is static, else two (only the batch is dynamic) or three."""
    batch, channels, height, width = shape
    if not isinstance(channels, int):
        raise ValueError(f"the number of channels must be known, not {channels!r}")
    turns = zip(BATCHES, SIZES, strict=True)
    found = ((_known(batch, n), channels, _known(height, h), _known(width, w)) for n, (h, w) in turns)
    return list(dict.fromkeys(found))


def _known(size: Dimension, otherwise: int) -> int:
    return size if isinstance(size, int) else otherwise


def _signal(shape: tuple[int, int, int, int], seed: int) -> tuple[Array, Array]:
    """Normal values of which the largest is 1, and means [N, C, 1, 1], normal with a standard deviation of a half."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(shape)
    return noise / np.abs(noise).max(), 0.5 * rng.standard_normal((*shape[:2], 1, 1))
