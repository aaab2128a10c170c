"""What the blocks with softmax attention are made of: attention itself, and LayerNorm over the last axis.

In half precision, logits and the statistics of a LayerNorm are computed in float32 between two Casts: a product of
queries and keys leaves float16 for activations that detectors have, and the runtimes differ in whether they compute
these two wider on their own (TensorRT 11 does not).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from graphsurgery.blocks.block import Array
from graphsurgery.template.template import Template


def transpose(t: Template, x: gs.Variable, order: Sequence[int], dtype: int | None = None) -> gs.Variable:
    """The axes of x in another order."""
    return t.op("Transpose", x, dtype=dtype, perm=list(order))


def reshape(t: Template, x: gs.Variable, shape: Sequence[int]) -> gs.Variable:
    """x in another shape, where 0 keeps an axis as it is and -1 is what is left over."""
    return t.op("Reshape", x, t.integers(shape, "shape"))


def concat(t: Template, parts: Sequence[gs.Variable], axis: int) -> gs.Variable:
    """Several tensors one behind the other along an axis."""
    return t.op("Concat", *parts, axis=axis)


def cut(t: Template, x: gs.Variable, axis: int, start: int, stop: int) -> gs.Variable:
    """The positions [start, stop) of an axis; numbers as attributes or as inputs, as the opset wants it."""
    if t.opset < 10:
        return t.op("Slice", x, axes=[axis], starts=[start], ends=[stop])
    bounds = [t.integers([number], name) for number, name in ((start, "starts"), (stop, "ends"), (axis, "axes"))]
    return t.op("Slice", x, *bounds)


def layer_norm(t: Template, x: gs.Variable, prefix: str, eps: float) -> gs.Variable:
    """LayerNorm over the last of four axes; as one operator from opset 17 on.

    Not in float64: the operator's epsilon is an attribute in float32. Before, what is left of the mean of many channels
    after one subtraction is subtracted as well: where all channels are equal, nothing but that would be normalised.
    """
    rank = 4
    weight, bias = t.values(f"{prefix}.weight"), t.values(f"{prefix}.bias")
    kind = wide(t)
    y = widened(t, x)
    if t.opset >= 17 and t.feature.dtype != "float64":
        scale, shift = (
            wide_constant(t, values, f"{prefix}.{name}") for values, name in ((weight, "weight"), (bias, "bias"))
        )
        y = t.op("LayerNormalization", y, scale, shift, dtype=kind, axis=-1, epsilon=eps)
        return narrowed(t, y)
    shape = [1] * (rank - 1) + [-1]
    centred = t.op("Sub", y, _mean_last(t, y, rank, kind), dtype=kind)
    centred = t.op("Sub", centred, _mean_last(t, centred, rank, kind), dtype=kind)
    variance = _mean_last(t, t.op("Mul", centred, centred, dtype=kind), rank, kind)
    epsilon = wide_constant(t, np.full([1] * rank, eps), "ln_eps")
    root = t.op("Sqrt", t.op("Add", variance, epsilon, dtype=kind), dtype=kind)
    y = t.op("Div", centred, root, dtype=kind)
    y = t.op("Mul", y, wide_constant(t, weight.reshape(shape), f"{prefix}.weight"), dtype=kind)
    y = t.op("Add", y, wide_constant(t, bias.reshape(shape), f"{prefix}.bias"), dtype=kind)
    return narrowed(t, y)


def _mean_last(t: Template, x: gs.Variable, rank: int, kind: int) -> gs.Variable:
    if t.opset >= 18:
        return t.op("ReduceMean", x, t.integers([rank - 1], "axes"), dtype=kind, keepdims=1)
    return t.op("ReduceMean", x, dtype=kind, axes=[rank - 1], keepdims=1)


def softmax(t: Template, x: gs.Variable, rank: int, dtype: int | None = None) -> gs.Variable:
    """Softmax over the last axis, the only one that means the same before and after opset 13; ``rank`` of x."""
    with t.statistics():
        return t.op("Softmax", x, dtype=dtype, axis=rank - 1)


def attention(
    t: Template,
    q: gs.Variable,
    k: gs.Variable,
    *,
    rank: int = 4,
    bias: Array | None = None,
    added: Sequence[gs.Variable] = (),
) -> gs.Variable:
    """softmax(q k + bias + added) over the keys: q [..., Nq, d], k [..., d, Nk] -> [..., Nq, Nk], of ``rank`` axes.

    The scale is part of q. ``bias``: constant; ``added``: tensors that come out of another product in the wider type.
    """
    kind = wide(t)
    logits = product(t, q, k)
    for term in added:
        logits = t.op("Add", logits, term, dtype=kind)
    if bias is not None:
        logits = t.op("Add", logits, wide_constant(t, bias, "attention_bias"), dtype=kind)
    return narrowed(t, softmax(t, logits, rank, kind))


def product(t: Template, a: gs.Tensor, b: gs.Tensor) -> gs.Variable:
    """The matrix product of two tensors of the site's type, in the type that logits are computed in."""
    return t.op("MatMul", widened(t, a), widened(t, b), dtype=wide(t))


def attend(
    t: Template, q: gs.Variable, k: gs.Variable, v: gs.Variable, *, added: Sequence[gs.Variable] = ()
) -> gs.Variable:
    """Attention on heads that lie channels first, [N, heads, d, positions], as convolutions leave them; the result too.

    The Transposes of q and v are ones that runtimes take into the matrix products behind them.
    """
    turned = (0, 1, 3, 2)
    weights = attention(t, transpose(t, q, turned), k, added=added)
    # not v times the weights turned: that is the large matrix, and turning v and the result costs next to nothing
    return transpose(t, t.op("MatMul", weights, transpose(t, v, turned)), turned)


def wide(t: Template) -> int:
    """The type that logits and statistics are computed in: float32 for the half precisions."""
    return TensorProto.FLOAT if t.feature.dtype in ("float16", "bfloat16") else t.feature.onnx_type


def widened(t: Template, x: gs.Tensor) -> gs.Tensor:
    """x in the wider type."""
    kind = wide(t)
    if kind == t.feature.onnx_type or isinstance(x, gs.Constant):  # constants are made in it
        return x
    return t.op("Cast", x, dtype=kind, to=kind)


def narrowed(t: Template, x: gs.Variable) -> gs.Variable:
    """x in the site's type again."""
    return x if wide(t) == t.feature.onnx_type else t.op("Cast", x, to=t.feature.onnx_type)


def wide_constant(t: Template, values: Array, name: str) -> gs.Constant:
    """A constant in the wider type."""
    if wide(t) == t.feature.onnx_type:
        return t.constant(values, name)
    return t.floats(values, name)


def flat(t: Template, x: gs.Variable, channels: int | None = None) -> gs.Variable:
    """[N, channels, H, W] -> [N, channels, H * W]; ``channels``: those of the site where not given."""
    return reshape(t, x, (0, channels or t.feature.channels, t.feature.area if t.feature.static else -1))


def like_map(t: Template, x: gs.Variable, channels: int) -> gs.Variable:
    """[N, ..., H * W] -> [N, channels, H, W]; where H and W are dynamic they are read off the site's shape."""
    if t.feature.static:
        return reshape(t, x, (0, channels, *t.feature.size))
    shape = t.op("Shape", t.x, dtype=TensorProto.INT64)
    if channels != t.feature.channels:
        size = t.op("Gather", shape, t.integers([2, 3], "height_width"), dtype=TensorProto.INT64, axis=0)
        start = t.integers([0, channels], "first_axes")
        shape = t.op("Concat", start, size, dtype=TensorProto.INT64, axis=0)
    return t.op("Reshape", x, shape)


def in_heads(t: Template, x: gs.Variable, heads: int, width: int) -> gs.Variable:
    """[N, heads * width, H, W] -> [N, heads, width, H * W]."""
    return reshape(t, x, (0, heads, width, t.feature.area if t.feature.static else -1))


def dense(t: Template, x: gs.Variable, prefix: str, *, bias: bool = True) -> gs.Variable:
    """The linear layer of that prefix on the last of four axes."""
    key = f"{prefix}.weight"
    y = t.op("MatMul", x, t.rows(key, range(t.values(key).shape[0]), transposed=True))
    return t.add(y, t.weight(f"{prefix}.bias", last_axis(t))) if bias else y


def last_axis(t: Template) -> tuple[int, ...]:
    """The shape of a bias for the last of four axes: onnxruntime fuses vectors only, TensorRT wants equal ranks."""
    return (-1,) if t.target == "onnxruntime" else (1, 1, 1, -1)


def without_separate(
    arrays: Mapping[str, Array], pattern: str, order: Sequence[str], joined: Callable[[re.Match[str]], str]
) -> dict[str, Array]:
    """Parts that a file keeps apart stacked along the first axis, in the ``order`` of the second group of ``pattern``.

    ``joined`` gives the key of the whole. What is not complete stays as it is.
    """
    groups: dict[str, dict[str, str]] = {}
    for key in arrays:
        match = re.fullmatch(pattern, key)
        if match is not None:
            groups.setdefault(joined(match), {})[match[2]] = key
    whole = {name: [parts[part] for part in order] for name, parts in groups.items() if set(parts) == set(order)}
    taken = {key for keys in whole.values() for key in keys}
    found = {key: values for key, values in arrays.items() if key not in taken}
    return found | {name: np.concatenate([arrays[key] for key in keys]) for name, keys in whole.items()}
