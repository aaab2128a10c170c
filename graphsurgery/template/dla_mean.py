"""Means on a DLA, which has no reduction but the largest value: chains of average poolings and depthwise convolutions.

A DLA pools windows of up to 8 x 8 and convolves with kernels of up to 32 x 32, in strides of up to 8 (NvInfer.h of
TensorRT 8.6). Each stage takes windows that tile its map exactly, so that the mean of the means is the mean. A side
with a prime factor that no window has gets a convolution with it as its kernel; one that no kernel has either is filled
up with zeros, and the weights are for the positions that there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from .writer import GraphWriter

WINDOW, KERNEL = 8, 32


class Step(NamedTuple):
    """``window`` positions of one side become one; ``filled`` zeros are appended to the side before that."""

    window: int
    filled: int = 0


class Stage(NamedTuple):
    """One step along either side at once."""

    height: Step
    width: Step

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of what becomes one position."""
        return self.height.window, self.width.window

    @property
    def pools(self) -> bool:
        """Whether an average pooling does it."""
        return max(self.window) <= WINDOW and not self.height.filled and not self.width.filled


def steps(size: int) -> list[Step]:
    """How one side of that many positions becomes one; the fewest windows where windows do."""
    windows = _windows(size)
    if windows is not None:
        return [Step(window) for window in windows]
    found: list[Step] = []
    while size > KERNEL or any(size % window == 0 for window in range(2, WINDOW + 1)):
        window = next((window for window in range(WINDOW, 1, -1) if size % window == 0), WINDOW)
        filled = -size % window
        found.append(Step(window, filled))
        size = (size + filled) // window
    return [*found, Step(size)] if size > 1 else found


def stages(height: int, width: int) -> list[Stage]:
    """How a map becomes one position; the steps of the shorter chain stand at the end, where the map is smallest."""
    pairs = zip_longest(steps(height)[::-1], steps(width)[::-1], fillvalue=Step(1))
    return [Stage(*pair) for pair in pairs][::-1]


def mean(t: GraphWriter, x: gs.Variable, axes: Sequence[int]) -> gs.Variable | None:
    """The mean of x [N, C, H, W] over some of the axes 1, 2 and 3, which stay with the size 1.

    None where the sizes are not known, or ONNX has not the operators for the element type.
    """
    shape = t.shape_of(x)
    if shape is None or len(shape) != 4 or not all(t.supports(name) for name in ("AveragePool", "Conv")):
        return None
    channels, *sides = (size if isinstance(size, int) else 0 for size in shape[1:])
    over = set(axes)
    if not channels or not over <= {1, 2, 3} or any(not side for axis, side in enumerate(sides, 2) if axis in over):
        return None
    height, width = (side if axis in over else 1 for axis, side in enumerate(sides, 2))
    x = _over_positions(t, x, channels, stages(height, width), 1 / (height * width))
    if 1 in over:
        x = t.conv(x, t.constant(np.full((1, channels, 1, 1), 1 / channels), "mean"))
    return x


def total(t: GraphWriter, x: gs.Variable) -> gs.Variable:
    """The sum of a map like the site's over its positions, by convolutions with ones: [N, C, 1, 1].

    Long kernels one side after the other: the rounding error of a sum grows with the numbers in it.
    """
    one = Step(1)
    for stage in stages(*t.feature.size):
        long = max(stage.window) > WINDOW and min(stage.window) > 1
        for part in (Stage(stage.height, one), Stage(one, stage.width)) if long else (stage,):
            x = _convolved(t, x, t.feature.channels, part, 1.0)
    return x


def _over_positions(
    t: GraphWriter, x: gs.Variable, channels: int, chain: Sequence[Stage], factor: float
) -> gs.Variable:
    """``factor`` times the sum. Convolutions but the last have powers of two as weights, which every type holds."""
    last = max((i for i, stage in enumerate(chain) if not stage.pools), default=None)
    left = factor * math.prod(math.prod(stage.window) for stage in chain if stage.pools)
    for place, stage in enumerate(chain):
        if stage.pools:
            x = t.op("AveragePool", x, kernel_shape=list(stage.window), strides=list(stage.window))
            continue
        weight = left if place == last else 2.0 ** -math.ceil(math.log2(math.prod(stage.window)))
        left /= weight
        x = _convolved(t, x, channels, stage, weight)
    return x


def _convolved(t: GraphWriter, x: gs.Variable, channels: int, stage: Stage, weight: float) -> gs.Variable:
    """One stage as a depthwise convolution whose weights are all the same."""
    # where one position is left, there is nothing to stride over, and strides end at 8
    strides = [window if window <= WINDOW else 1 for window in stage.window]
    kernel = t.constant(np.full((channels, 1, *stage.window), weight), "pool")
    pads = [0, 0, stage.height.filled, stage.width.filled]
    return t.conv(x, kernel, strides=strides, group=channels, **({"pads": pads} if any(pads) else {}))


def _windows(size: int) -> list[int] | None:
    """The fewest whole numbers up to 8 of which ``size`` is the product, the largest first; None if there are none."""
    if size <= WINDOW:
        return [size] if size > 1 else []
    found = [
        [window, *rest]
        for window in range(WINDOW, 1, -1)
        if size % window == 0 and (rest := _windows(size // window)) is not None
    ]
    best = min(found, key=len, default=None)
    return sorted(best, reverse=True) if best else None
