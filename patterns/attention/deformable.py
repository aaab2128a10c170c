"""The depthwise deformable convolution: taps lie where a convolution of the map moves them.

ONNX has an operator for it from opset 19 on, which onnxruntime computes from 1.25 on, and TensorRT by a plugin from
10.1 on. GridSample, from opset 16 on, reads the same values: all runtimes have it, and onnxruntime takes twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from graphsurgery.blocks import Array, BlockError, Template, Variable

from .transformer import cut, reshape, transpose

OPERATOR, GRID, PRODUCT = "deform-conv", "grid", "product"
_MOST = 2**27
"""elements of the largest matrix of a product, half a gigabyte"""


def lowerings(opset: int) -> Sequence[str]:
    """What it can be written with."""
    if opset >= 19:
        return (OPERATOR, GRID)
    return (GRID,) if opset >= 16 else (PRODUCT,)


def deformable(t: Template, x: Variable, prefix: str, dilation: int, lowering: str) -> Variable:
    """The layer of that prefix on a map of the site's size: ``offset_net`` and ``deform_conv``, which has no bias.

    Places are computed in float32, and so is what is read there.
    """
    moves, taps = f"{prefix}.offset_net", f"{prefix}.deform_conv.weight"
    side = t.values(taps).shape[2]
    around = {"pads": [dilation * (side // 2)] * 4} | ({"dilations": [dilation] * 2} if dilation > 1 else {})
    if lowering == OPERATOR:
        offsets = t.conv(x, t.weight(f"{moves}.weight"), t.weight(f"{moves}.bias"), **around)
        with t.statistics():
            weight = t.weight(taps)
            attributes: dict[str, Any] = {"kernel_shape": [side, side], "group": t.feature.channels, **around}
            return t.cast(t.op("DeformConv", x, weight, offsets, **attributes))
    # x before y, as GridSample has them
    order = np.arange(2 * side * side).reshape(-1, 2)[:, ::-1].reshape(-1).tolist()
    bias = t.constant(t.values(f"{moves}.bias")[order], f"{moves}.bias")
    offsets = t.conv(x, t.rows(f"{moves}.weight", order, shape=t.values(f"{moves}.weight").shape), bias, **around)
    with t.statistics():
        offsets = transpose(t, reshape(t, offsets, (0, side * side, 2, t.feature.area)), (0, 1, 3, 2))
        own = _own_places(t.feature.size, side, dilation)
        read = _by_grid if lowering == GRID else _by_product
        y = reshape(t, read(t, x, offsets, own, taps), (0, t.feature.channels, *t.feature.size))
    return t.cast(y)


def _own_places(size: tuple[int, int], side: int, dilation: int) -> Array:
    """Where the taps of every position lie that nothing moves: [1, taps, H * W, 2], in positions, x before y."""
    steps, (height, width) = dilation * (np.arange(side) - side // 2), size
    down, right = (each.reshape(-1, 1) for each in np.meshgrid(steps, steps, indexing="ij"))
    rows, columns = (each.reshape(1, -1) for each in np.meshgrid(np.arange(height), np.arange(width), indexing="ij"))
    return np.stack([right + columns, down + rows], axis=-1)[None].astype(float)


def _by_grid(t: Template, x: Variable, offsets: Variable, own: Array, taps: str) -> Variable:
    """[N, C, 1, H * W]: what is read, [N, C, taps, H * W], and the taps as one column of a depthwise convolution, or as
    one row of a matrix for each channel.
    """
    sides = np.array(t.feature.size[::-1], dtype=float).reshape(1, 1, 1, 2)
    moved = t.mul(offsets, t.constant(2 / sides, "per_position"))
    places = t.add(moved, t.constant((2 * own + 1) / sides - 1, "places"))
    mode = "linear" if t.opset >= 20 else "bilinear"
    read = t.op("GridSample", x, places, mode=mode, padding_mode="zeros", align_corners=0)
    channels, count = t.feature.channels, own.shape[1]
    if t.target == "onnxruntime":  # which reorders what is read, the largest tensor, for a convolution
        return t.op("MatMul", t.weight(taps, (1, channels, 1, count)), read)
    return t.conv(read, t.weight(taps, (-1, 1, count, 1)), group=channels)


def _by_product(t: Template, x: Variable, offsets: Variable, own: Array, taps: str) -> Variable:
    """The same without GridSample, one row of taps after the other.

    A bilinear sample is a product with a matrix of tents: each position counts max(0, 1 - its distance to the place)
    along either side, which is 0 outside of the map by itself.
    """
    (height, width), channels, weight = t.feature.size, t.feature.channels, t.kept(taps)
    side = weight.shape[2]
    if side * t.feature.area**2 > _MOST:
        size = 4 * side * t.feature.area**2 / 1e9
        raise BlockError(
            f"lka reads between positions, which takes a matrix of {size:.1f} GB at {t.feature.label} before opset 16, "
            f"and the model has opset {t.opset}; export it with opset 16 or later"
        )
    places = t.add(offsets, t.constant(own, "places"))
    maps = reshape(t, x, (0, 1, channels, t.feature.area))
    sums = []
    for row in range(side):
        some = cut(t, places, 1, row * side, (row + 1) * side)
        tents = []
        for axis, length, shape in ((1, height, (1, 1, 1, height, 1)), (0, width, (1, 1, 1, 1, width))):
            place = reshape(t, cut(t, some, 3, axis, axis + 1), (0, side, t.feature.area, 1, 1))
            numbers = t.constant(np.arange(length).reshape(shape), "positions")
            away = t.op("Abs", t.sub(place, numbers))
            tents.append(t.relu(t.sub(t.constant(np.ones((1, 1, 1, 1, 1)), "one"), away)))
        shares = reshape(t, t.mul(*tents), (0, 1, side * t.feature.area, t.feature.area))
        read = t.op("MatMul", maps, transpose(t, shares, (0, 1, 3, 2)))
        read = reshape(t, read, (0, channels, side, t.feature.area))
        kernel = t.constant(weight[:, :, row].reshape(-1, 1, side, 1), taps)
        sums.append(t.conv(read, kernel, group=channels))
    return reduce(t.add, sums)
