"""Activations that ONNX has no single operator for, in every element type and operator set."""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks import Template, Variable


def silu(t: Template, x: gs.Tensor) -> Variable:
    """x * sigmoid(x)."""
    return t.mul(x, t.sigmoid(x))


def hard_sigmoid(t: Template, x: gs.Tensor) -> Variable:
    """relu6(x + 3) / 6, as torch and timm have it; ONNX's operator has another slope by default."""
    if t.target == "dla":  # which has no HardSigmoid
        return clip(t, t.add(t.mul(x, t.scalar(1 / 6, "sixth")), t.scalar(0.5, "half")), 0.0, 1.0)
    # the slope is a float32 attribute, which is too coarse for float64
    if t.supports("HardSigmoid") and t.dtype != "float64":
        return t.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    return t.mul(clip(t, t.add(x, t.scalar(3.0, "three")), 0.0, 6.0), t.scalar(1 / 6, "sixth"))


def hard_swish(t: Template, x: gs.Tensor) -> Variable:
    """x * relu6(x + 3) / 6. Not ONNX's HardSwish: it comes with opset 14, and runtimes take it apart again."""
    return t.mul(x, hard_sigmoid(t, x))


def gelu(t: Template, x: gs.Tensor) -> Variable:
    """x / 2 * (1 + erf(x / sqrt 2)). Not ONNX's Gelu: TensorRT 8.6 lacks it; onnxruntime makes its own of this form."""
    return t.mul(twice_gelu(t, x), _number(t, 0.5, "half"))


def twice_gelu(t: Template, x: gs.Tensor) -> Variable:
    """The same without the half, for what is multiplied afterwards anyhow."""
    root, one = _number(t, math.sqrt(2), "root_two"), _number(t, 1.0, "one")
    return t.mul(x, t.add(t.op("Erf", t.div(x, root)), one))


def _number(t: Template, value: float, name: str) -> gs.Constant:
    shape = () if t.target == "onnxruntime" else (1, 1, 1, 1)  # its fusion looks for scalars
    return t.constant(np.full(shape, value), name)


def clip(t: Template, x: gs.Tensor, low: float, high: float) -> Variable:
    """x between two numbers; they are attributes or inputs, as the opset wants them."""
    if t.opset < 11:
        return t.op("Clip", x, min=low, max=high)
    return t.op("Clip", x, t.constant(np.array(low), "low"), t.constant(np.array(high), "high"))
