"""Normalisation by statistics of the input itself, in forms that every runtime and element type has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks import Array, FeatureMap, Template, Variable

SMALLEST = 2.0**-14
"""The smallest normal number of float16: what a template divides by is never less."""
INSTANCE_NORM, STATISTICS = "instance-norm", "statistics"
_PER_CHANNEL = (1, -1, 1, 1)
_TOKENS = 3  # the axis of their channels
_LARGE = 4096  # positions; below, the operator was as fast or faster on two cores


def lowerings(feature: FeatureMap, opset: int) -> tuple[str, ...]:
    """What a block with an instance or group normalisation can be written with here.

    ONNX has InstanceNormalization for bfloat16 from opset 22 on, and onnxruntime none for float64; the statistics
    written out square deviations, which float16 cannot hold.
    """
    if feature.static and feature.area == 1:
        return (STATISTICS,)  # the difference from the mean is then exactly 0, which the operator does not promise
    if feature.dtype == "float16":
        return (INSTANCE_NORM,)
    if feature.dtype == "float32" or (feature.dtype == "bfloat16" and opset >= 22):
        return (INSTANCE_NORM, STATISTICS)
    return (STATISTICS,)


def of_maps(feature: FeatureMap, opset: int) -> tuple[str, ...]:
    """The same for a normalisation over the whole map, of which the operator takes one sum: not of a large one."""
    forms = lowerings(feature, opset)
    exact = tuple(form for form in forms if form != INSTANCE_NORM)
    return exact if exact and feature.large else forms


def choose(t: Template, forms: Sequence[str]) -> str:
    """The statistics on a large map for onnxruntime, whose InstanceNormalization has one core; else the operator."""
    large = t.feature.static and t.feature.area >= _LARGE
    return forms[-1] if t.target == "onnxruntime" and large else forms[0]


def instance_norm(t: Template, x: gs.Tensor, weight: Array, bias: Array, eps: float, lowering: str) -> Variable:
    """x [N, C, h, w] normalised over h and w (population variance), times weight [C], plus bias [C]."""
    with t.statistics():  # TensorRT 11 computes the operator in the type of its input
        if lowering == INSTANCE_NORM:
            return t.op("InstanceNormalization", x, t.constant(weight, "scale"), t.constant(bias, "shift"), epsilon=eps)
        centred, deviation = statistics(t, x, eps)
        shape = (1, -1, 1, 1)
        normal = t.mul(centred, t.div(t.constant(weight.reshape(shape), "scale"), deviation))
        return t.add(normal, t.constant(bias.reshape(shape), "shift")) if bias.any() else normal


def statistics(t: Template, x: gs.Tensor, eps: float, mean: Variable | None = None) -> tuple[Variable, Variable]:
    """(x - mean, sqrt(variance + eps)) over h and w of [N, C, h, w]; the latter [N, C, 1, 1]."""
    with t.statistics():
        centred = t.sub(x, mean or t.mean_hw(x))
        variance = t.mean_hw(t.mul(centred, centred))
        return centred, t.op("Sqrt", t.add(variance, t.scalar(eps, "eps")))


def group_norm(
    t: Template, x: gs.Tensor, groups: int, weight: Array, bias: Array, eps: float, lowering: str, side: int
) -> Variable:
    """GroupNorm of a strip, [N, C, h, 1] (``side`` 2) or [N, C, 1, w] (``side`` 3), with weight and bias [C].

    The strip is a map of ``groups`` channels for an instance normalisation. ONNX's own operator has its parameters per
    group before opset 21.
    """
    channels = weight.size
    flat = t.op("Reshape", x, t.integers([0, groups, -1, 1], "groups"))
    normal = instance_norm(t, flat, np.ones(groups), np.zeros(groups), eps, lowering)
    shape = [0, channels, -1, 1] if side == 2 else [0, channels, 1, -1]
    return t.per_channel_affine(t.op("Reshape", normal, t.integers(shape, "strip")), weight, bias, "affine")


def largest(t: Template, x: Variable, axes: Sequence[int], least: float = SMALLEST) -> Variable:
    """The largest absolute value over some axes, or ``least`` where all are smaller."""
    return t.op("Max", t.reduce("ReduceMax", t.op("Abs", x), axes), t.scalar(least, "smallest"))


def deviation(t: Template, centred: Variable, average: Callable[[Variable], Variable]) -> Variable:
    """The root of the mean square of what has the mean 0; ``average``: over its last two axes.

    In float16 deviations are divided by the largest of their channel first, so that no square leaves the type.
    """
    if t.dtype != "float16":
        return t.op("Sqrt", average(t.mul(centred, centred)))
    top = largest(t, centred, (2, 3))
    scaled = t.div(centred, top)
    return t.mul(top, t.op("Sqrt", average(t.mul(scaled, scaled))))


def unit_length(t: Template, x: Variable, axis: int, least: float) -> Variable:
    """x of four axes over its length along one, which is taken for at least ``least``.

    In float16 it is divided by the largest first, so that no square leaves the type.
    """
    if t.dtype == "float16":
        x, least = t.div(x, largest(t, x, (axis,))), SMALLEST
    length = t.op("Sqrt", t.plain_reduce("ReduceSum", t.mul(x, x), (axis,)))
    return t.div(x, t.op("Max", length, t.scalar(least, "least")))


def layer_norm(t: Template, x: Variable, prefix: str, eps: float) -> Variable:
    """LayerNorm over the channels of [N, C, 1, 1], with weight and bias of that prefix."""
    with t.statistics():
        operator = t.supports("LayerNormalization")
        shape = (-1, 1, 1) if operator else (1, -1, 1, 1)
        weight, bias = (t.weight(f"{prefix}.{part}", shape) for part in ("weight", "bias"))
        if operator:
            return t.op("LayerNormalization", x, weight, bias, axis=1, epsilon=eps)
        return t.add(t.mul(_over_deviation(t, _centred(t, x, 1), (1,), _mean_over(1), eps, "eps"), weight), bias)


def whole_norm(t: Template, x: Variable, prefix: str, eps: float) -> Variable:
    """GroupNorm of one group, over the channels and positions of [N, C, h, w], with weight and bias of that prefix.

    As means of means: a sum over that many values would lose digits, and an InstanceNormalization takes one. What is
    left of the mean is subtracted as well, as in token_norm.
    """
    with t.statistics():
        centred = t.sub(x, _whole_mean(t, x))
        centred = t.sub(centred, _whole_mean(t, centred))
        normal = _over_deviation(t, centred, (1, 2, 3), _whole_mean, eps, "gn_eps")
        return t.add(
            t.mul(normal, t.weight(f"{prefix}.weight", _PER_CHANNEL)), t.weight(f"{prefix}.bias", _PER_CHANNEL)
        )


def _whole_mean(t: Template, x: Variable) -> Variable:
    return t.reduce("ReduceMean", t.mean_hw(x), (1,))


def token_norm(t: Template, x: Variable, prefix: str, eps: float) -> Variable:
    """LayerNorm over the channels of tokens, the last of four axes, with weight and bias of that prefix.

    As one operator from opset 17 on; not in float64, since its epsilon is an attribute in float32. Before, what is left
    of the mean of many channels after one subtraction is subtracted as well: where all channels are equal, nothing but
    that would be normalised.
    """
    with t.statistics():
        operator = t.supports("LayerNormalization") and t.dtype != "float64"
        normal = x
        if not operator:
            centred = _centred(t, _centred(t, x, _TOKENS), _TOKENS)
            normal = _over_deviation(t, centred, (_TOKENS,), _mean_over(_TOKENS), eps, "ln_eps")
        shape = (-1,) if operator else (1, 1, 1, -1)
        weight, bias = (t.constant(t.values(key).reshape(shape), key) for key in (f"{prefix}.weight", f"{prefix}.bias"))
        if operator:
            return t.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)
        return t.add(t.mul(normal, weight), bias)


def _centred(t: Template, x: Variable, axis: int) -> Variable:
    return t.sub(x, _mean_over(axis)(t, x))


def _mean_over(axis: int) -> Callable[[Template, Variable], Variable]:
    return lambda t, x: (t.plain_reduce if axis == _TOKENS else t.reduce)("ReduceMean", x, (axis,))


def _over_deviation(
    t: Template,
    centred: Variable,
    axes: Sequence[int],
    mean: Callable[[Template, Variable], Variable],
    eps: float,
    name: str,
) -> Variable:
    """Deviations from the mean over sqrt(variance + eps); ``mean``: over the ``axes``.

    In float16 they are divided by the largest first, and the root of epsilon with them, so that no square leaves it.
    """
    if t.dtype == "float16":
        top = largest(t, centred, axes)
        centred, root = t.div(centred, top), t.div(t.scalar(np.sqrt(eps), "root_eps"), top)
        least: gs.Tensor = t.mul(root, root)
    else:
        least = t.scalar(eps, name)
    variance = mean(t, t.mul(centred, centred))
    return t.div(centred, t.op("Sqrt", t.add(variance, least)))
