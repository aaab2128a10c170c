"""Forms for onnxruntime's CPU provider, which take it a fraction of the time; other runtimes gain nothing by them.

The provider calls a kernel once for each run of equal strides. Where only a row is one, as for gates of rows and
columns, the calls cost more than the work: a matrix product with an inner axis of 1 costs half. A convolution to fewer
than 16 channels is computed for 16: as sixteen neighbouring positions of one channel these are none too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphsurgery.blocks import Array, Template, Variable

CROSSED = "crossed"
"""Lowering: gates of rows and of columns multiplied with each other first, by a matrix product."""
_CROSSED = f"+{CROSSED}"
_STEP = 4
_SMALL = 1600  # positions; beyond, ReduceMean is as fast as a pooling that needs the map in blocks of channels
_BLOCK = 16


def with_crossed(forms: Sequence[str]) -> tuple[str, ...]:
    """Each lowering, and each with crossed gates."""
    return (*forms, *(f"{form}{_CROSSED}" for form in forms))


def uncrossed(forms: Sequence[str]) -> list[str]:
    """The lowerings without crossed gates."""
    return [form for form in forms if not form.endswith(_CROSSED)]


def crossed_where_faster(t: Template, form: str) -> str:
    """A lowering, with crossed gates for onnxruntime."""
    return f"{form}{_CROSSED}" if t.target == "onnxruntime" else form


def gated(t: Template, x: Variable, rows: Variable, columns: Variable, lowering: str) -> Variable:
    """x times gates of its rows [N, C, H, 1] and of its columns [N, C, 1, W]."""
    if lowering.endswith(CROSSED):
        return t.mul(x, t.op("MatMul", rows, columns))
    return t.mul(t.mul(x, rows), columns)


def strip_mean(t: Template, axis: int) -> Variable:
    """The mean of x over height (``axis`` 2) or width (3).

    onnxruntime pools short rows and columns faster than it reduces them, where the channels come in whole blocks.
    """
    small = t.feature.static and t.feature.area <= _SMALL and t.feature.channels % _BLOCK == 0
    if t.target != "onnxruntime" or not small or t.feature.dtype not in ("float32", "float16"):
        return t.reduce("ReduceMean", t.x, (axis,))
    height, width = t.feature.size
    return t.op("AveragePool", t.x, kernel_shape=[height, 1] if axis == 2 else [1, width])


def in_steps(size: Sequence[int | None]) -> bool:
    """Whether gate_in_steps works for planes of that height and width."""
    return all(side is not None and side % _STEP == 0 for side in size)


def gate_in_steps(t: Template, planes: Variable, weight: Array, bias: Array, name: str) -> Variable:
    """sigmoid of a convolution [N, I, H, W] -> [N, O, H, W] that keeps the size, for few channels and large kernels.

    Sixteen neighbouring positions, 4 x 4, are sixteen channels of one convolution in steps of 4, whose kernels are the
    same one, shifted. ``weight`` [O, I, k, k], k odd; H and W are multiples of 4.
    """
    outputs, inputs, side, _ = weight.shape
    wide = np.zeros((_STEP, _STEP, outputs, inputs, side + _STEP - 1, side + _STEP - 1))
    for down in range(_STEP):
        for right in range(_STEP):
            wide[down, right, :, :, down : down + side, right : right + side] = weight
    kernel = t.constant(wide.reshape(-1, *wide.shape[3:]), f"{name}.weight")
    shift = t.constant(np.tile(bias, _STEP * _STEP), f"{name}.bias")
    gates = t.sigmoid(t.conv(planes, kernel, shift, pads=[side // 2] * 4, strides=[_STEP] * 2))
    # for planes of one channel the two modes are one, and other readers know this one only
    mode: dict[str, Any] = {"mode": "CRD"} if outputs == 1 and t.opset >= 11 and t.since(2) else {}
    return t.op("DepthToSpace", gates, blocksize=_STEP, **mode)
