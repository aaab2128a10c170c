"""BatchNormalizations in a block: what they multiply by and add, against what its template writes for the same weights.

A template writes them with variances of 1, and scales that make up for the epsilon. Another epsilon moves all that they
give by some millionths, which is less than a comparison in float32 can tell behind a gate, and more than rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from ..feature_map import Array
from .cutout import constants

_UNITS_OFF = 8
"""Weights are read back from the constants that they became, and become them again: each way rounds a few times."""


def misfit(block: onnx.ModelProto, written: onnx.ModelProto, unit: float) -> str:
    """In which BatchNormalization the two differ by more than rounding, and by how much; "" where in none.

    ``unit``: the largest relative error of rounding to the block's element type. Blocks in which other operators stand
    are not compared.
    """
    found, expected = list(_affine(block)), list(_affine(written))
    if len(found) != len(expected):
        return ""
    for (name, kind, scale, shift), (_, other, wanted, at) in zip(found, expected, strict=True):
        if kind != other or scale.shape != wanted.shape:
            continue
        size = float(np.abs(wanted).max())
        apart = float(np.abs(scale - wanted).max()) / size if size else 0.0
        level = max(float(np.abs(at).max()), size)
        moved = float(np.abs(shift - at).max()) / level if level else 0.0
        if not max(apart, moved) <= _UNITS_OFF * unit:
            return (
                f"{name} is off by {max(apart, moved):.1e} in what it multiplies by or adds, "
                "from what its weights and its template make of it"
            )
    return ""


def _affine(block: onnx.ModelProto) -> Iterator[tuple[str, int, Array, Array]]:
    """(name, element type, what it multiplies by, what it adds) of each that has constants only; float64."""
    held = constants(block)
    for node in block.graph.node:
        if node.op_type == "BatchNormalization" and all(name in held for name in node.input[1:]):
            scale, bias, mean, variance = (
                onnx.numpy_helper.to_array(held[name]).astype(np.float64) for name in node.input[1:5]
            )
            epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
            with np.errstate(all="ignore"):  # a negative variance is a misfit, too
                factor = scale / np.sqrt(variance + epsilon)
            yield node.name or node.op_type, held[node.input[1]].data_type, factor, bias - mean * factor
