"""Pieces that several blocks are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from graphsurgery.blocks import Array, Template, Variable
from graphsurgery.template import weight_folding

from .activations import gelu
from .norms import deviation
from .transformer import cut


def conv_bn(
    t: Template,
    x: Variable,
    conv: str,
    bn: str,
    eps: float,
    *,
    shape: Sequence[int] | None = None,
    **attributes: Any,
) -> Variable:
    """The convolution (or linear layer, with the ``shape`` of a 1x1 convolution) of prefix ``conv`` with its BatchNorm.

    Both are folded in float64; the convolution may or may not have a bias.
    """
    return t.conv(x, *folded_conv(t, conv, bn, eps, shape=shape), **attributes)


def conv_then_bn(t: Template, x: Variable, conv: str, bn: str, eps: float, **attributes: Any) -> Variable:
    """The same as two operators, for a BatchNorm whose scale starts at 0.

    Folded, the weights of the convolution would be gone, and training from the file could not go on. Runtimes fold the
    two themselves.
    """
    return batch_norm(t, t.conv(x, t.weight(f"{conv}.weight"), **attributes), bn, eps)


def batch_norm(t: Template, x: Variable, bn: str, eps: float, *, factor: float = 1.0) -> Variable:
    """The BatchNorm of that prefix as an operator of its own, of x times a factor."""
    scale, shift = weight_folding.affine(t.values, bn, eps)
    return t.per_channel_affine(x, scale * factor, shift, bn)


def folded_conv(
    t: Template, conv: str, bn: str, eps: float, *, shape: Sequence[int] | None = None
) -> tuple[gs.Constant, gs.Constant]:
    """(weight, bias) of a convolution with its BatchNorm folded in, for one that is used more than once."""
    weight, bias = folded_values(t, conv, bn, eps, shape=shape)
    return weight, t.constant(bias, f"{conv}.bias")


def conv_bn_rows(
    t: Template, x: Variable, conv: str, bn: str, eps: float, rows: Sequence[int], *, factor: float = 1.0
) -> Variable:
    """Some output channels of a convolution without bias, with its BatchNorm folded in, times a factor.

    Every row has to end up in exactly one (see Template.rows).
    """
    weight = t.rows(f"{conv}.weight", rows, factor=factor, bn=bn, eps=eps)
    shift = weight_folding.affine(t.values, bn, eps)[1][list(rows)] * factor
    return t.conv(x, weight, t.constant(shift, f"{conv}.bias"))


def linear_rows(
    t: Template, x: Variable, prefix: str, rows: range, *, bias: bool = True, factor: float = 1.0
) -> Variable:
    """Some output channels of the 1x1 convolution or linear layer of that prefix, times a factor.

    Every row has to end up in exactly one (see Template.rows).
    """
    inputs = t.values(f"{prefix}.weight").shape[1]
    weight = t.rows(f"{prefix}.weight", rows, shape=(len(rows), inputs, 1, 1), factor=factor)
    if not bias:
        return t.conv(x, weight)
    return t.conv(x, weight, t.constant(t.values(f"{prefix}.bias")[list(rows)] * factor, f"{prefix}.bias"))


def folded_values(
    t: Template, conv: str, bn: str, eps: float, *, shape: Sequence[int] | None = None
) -> tuple[gs.Constant, Array]:
    """The same with the bias as values."""
    weight, shift = t.folded(f"{conv}.weight", bn, eps, shape=shape)
    if t.has(f"{conv}.bias"):
        scale, _ = weight_folding.affine(t.values, bn, eps)
        shift = shift + scale * t.values(f"{conv}.bias")
    return weight, shift


def linear(
    t: Template, x: Variable, prefix: str, *, bias: bool = True, bias_factor: float = 1.0, gemm: bool = False
) -> Variable:
    """The 1x1 convolution or linear layer of that prefix, [N, C, H, W] -> [N, O, H, W]; ``gemm``: [N, C] -> [N, O]."""
    return multiplied(t, x, layer_weights(t, prefix, bias=bias, bias_factor=bias_factor, gemm=gemm), gemm=gemm)


def apart(t: Template) -> tuple[int, ...] | None:
    """The shape of a bias that is an operator of its own, which runtimes take into the convolution before it.

    For a convolution of which the result is added to, or multiplied with, a tensor of other channels or positions.
    OpenCV 5 would take that addition into the convolution, and multiply blocks of channels with each other, without a
    look at the shapes. None where the bias is the convolution's all the same.
    """
    return (1, -1, 1, 1) if t.target != "dla" and t.since(2) else None


def biased(t: Template, x: Variable, weight: gs.Constant, bias: gs.Constant, **attributes: Any) -> Variable:
    """A convolution with its bias [O], or with one that is ``apart``; the latter first, where optimisers leave it."""
    if len(bias.shape) == 1:
        return t.conv(x, weight, bias, **attributes)
    return t.add(bias, t.conv(x, weight, **attributes))


def linear_then_bias(t: Template, x: Variable, prefix: str, *, bias_factor: float = 1.0) -> Variable:
    """The 1x1 convolution or linear layer of that prefix, its bias apart."""
    (weight,) = layer_weights(t, prefix, bias=False)
    return biased(t, x, weight, t.weight(f"{prefix}.bias", apart(t), factor=bias_factor))


def layer_weights(
    t: Template, prefix: str, *, bias: bool = True, bias_factor: float = 1.0, gemm: bool = False
) -> list[gs.Constant]:
    """Weight and perhaps bias of such a layer, for one that is used more than once."""
    shape = t.values(f"{prefix}.weight").shape[:2]
    weight = t.weight(f"{prefix}.weight", shape if gemm else (*shape, 1, 1))
    return [weight, t.weight(f"{prefix}.bias", factor=bias_factor)] if bias else [weight]


def multiplied(t: Template, x: Variable, weights: Sequence[gs.Constant], *, gemm: bool) -> Variable:
    """x times the ``weights`` of such a layer."""
    return t.op("Gemm", x, *weights, transB=1) if gemm else t.conv(x, *weights)


def depthwise(t: Template, x: Variable, prefix: str, dilation: int = 1) -> Variable:
    """The depthwise convolution of that prefix, with its bias, padded so that the size stays."""
    weight = t.weight(f"{prefix}.weight")
    pads = [dilation * (int(side) - 1) // 2 for side in weight.shape[2:]] * 2
    dilations = {"dilations": [dilation] * 2} if dilation > 1 else {}
    return t.conv(x, weight, t.weight(f"{prefix}.bias"), pads=pads, group=int(weight.shape[0]), **dilations)


def branched(t: Template, base: Variable, branches: Sequence[tuple[str, str]]) -> Variable:
    """``base`` plus two depthwise convolutions of it in a row, for each of ``branches``.

    The sums come last: onnxruntime adds in place what nobody reads any more, and copies what other branches still do.
    """
    ends = [depthwise(t, base, first) for first, _ in branches]
    ends = [depthwise(t, end, second) for end, (_, second) in zip(ends, branches, strict=True)]
    return reduce(t.add, ends, base)


def projected(t: Template, unit: Callable[[Variable], Variable]) -> Variable:
    """x + proj_2(unit(gelu(proj_1(x)))): a gating unit between two 1x1 convolutions, with the shortcut."""
    return t.add(t.x, linear(t, unit(gelu(t, linear(t, t.x, "proj_1"))), "proj_2"))


def softmax_mean(t: Template, logits: Variable) -> Variable:
    """The mean over H and W of x weighted with the softmax over H and W of ``logits`` [N, 1, H, W]: [N, C, 1, 1].

    Two means of at most |x| each and their ratio: sums over the positions could leave float16.
    """
    with t.statistics():  # both means are small where few positions count
        weight = t.op("Exp", t.sub(logits, t.reduce("ReduceMax", logits, (2, 3))))
        return t.div(t.mean_hw(t.mul(t.x, weight)), t.mean_hw(weight))


def channel_planes(t: Template, x: Variable, kinds: Sequence[str]) -> Variable:
    """One plane for each of ``kinds``, ReduceMean or ReduceMax over the channels: [N, C, H, W] -> [N, 2, H, W]."""
    return t.op("Concat", *(t.reduce(kind, x, (1,)) for kind in kinds), axis=1)


def channel_planes_by_rows(t: Template, x: Variable, kinds: Sequence[str]) -> Variable:
    """The same at a static site, in a form for onnxruntime.

    That reduces an axis that is not the last one position by position, striding over the map. A matrix product reads
    it row by row, and so does the larger of two maps: the maximum of all is that of eighths, one above the other.
    """
    channels = t.feature.channels
    planes = {
        "ReduceMean": lambda: mean_plane_by_rows(t, x, channels),
        "ReduceMax": lambda: largest_plane_by_rows(t, [x], channels),
    }
    return t.op("Concat", *(planes[kind]() for kind in kinds), axis=1)


def mean_plane_by_rows(t: Template, x: Variable, channels: int) -> Variable:
    """The mean over the channels of [N, channels, H, W], as channel_planes_by_rows has it: [N, 1, H, W]."""
    rows = t.op("Reshape", x, t.integers([0, 1, channels, t.feature.area], "rows"))
    mean = t.op("MatMul", t.constant(np.full((1, 1, 1, channels), 1 / channels), "mean"), rows)
    return t.op("Reshape", mean, t.integers([0, 1, *t.feature.size], "plane"))


def largest_plane_by_rows(t: Template, maps: Sequence[Variable], channels: int) -> Variable:
    """The maximum over the channels of some maps [N, channels, H, W], likewise: [N, 1, H, W]."""
    count = next(count for count in (8, 4, 2, 1) if channels % count == 0)
    step = channels // count
    starts = range(0, channels, step)
    parts = [cut(t, x, 1, start, start + step) if count > 1 else x for x in maps for start in starts]
    largest = largest_of(t, parts)
    return t.reduce("ReduceMax", largest, (1,)) if step > 1 else largest


def largest_of(t: Template, parts: Sequence[Variable]) -> Variable:
    """The maximum of some maps, two by two: OpenCV 4.12 takes no more."""
    if len(parts) > 2 and not t.since(2):
        return t.op("Max", *parts)
    return reduce(lambda a, b: t.op("Max", a, b), parts)


def moments(t: Template, x: Variable) -> tuple[Variable, Variable]:
    """(mean, the population's standard deviation) over H and W: each [N, C, 1, 1]."""
    with t.statistics():
        middle = t.mean_hw(x)
        return middle, deviation(t, t.sub(x, middle), t.mean_hw)


def degrees_of_freedom(t: Template) -> float | Variable:
    """(M - 1) / M for the M positions of the map: a number at a static site, else computed from the shape, in float32
    since float16 ends before M does.
    """
    if t.feature.static:
        return (t.feature.area - 1) / t.feature.area
    int64 = TensorProto.INT64
    shape = t.op("Shape", t.x, dtype=int64)
    sides = [t.op("Gather", shape, t.integers([axis], f"axis{axis}"), dtype=int64, axis=0) for axis in (2, 3)]
    area = t.op("Mul", *sides, dtype=int64)
    less = t.op("Sub", area, t.integers([1], "one_position"), dtype=int64)
    wide = TensorProto.DOUBLE if t.feature.dtype == "float64" else TensorProto.FLOAT
    ratio = t.op("Div", *(t.op("Cast", n, dtype=wide, to=wide) for n in (less, area)), dtype=wide)
    return ratio if wide == t.onnx_type else t.op("Cast", ratio, to=t.onnx_type)
