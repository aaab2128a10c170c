"""What the blocks with softmax attention are made of: attention itself, and tokens.

Logits are statistics (see GraphWriter.statistics): a product of queries and keys leaves float16 for activations that
detectors have, and the runtimes differ in whether they compute it wider on their own (TensorRT 11 does not). Where they
have to be in float16 all the same, they are in units of 256 until their maximum is taken off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from graphsurgery.blocks import Array, Template, Variable


def transpose(t: Template, x: Variable, order: Sequence[int]) -> Variable:
    """The axes of x in another order."""
    return t.op("Transpose", x, perm=list(order))


def reshape(t: Template, x: Variable, shape: Sequence[int]) -> Variable:
    """x in another shape, where 0 keeps an axis as it is and -1 is what is left over."""
    return t.op("Reshape", x, t.integers(shape, "shape"))


def concat(t: Template, parts: Sequence[Variable], axis: int) -> Variable:
    """Several tensors concatenated along an axis."""
    return t.op("Concat", *parts, axis=axis)


def cut(t: Template, x: Variable, axis: int, start: int, stop: int) -> Variable:
    """The positions [start, stop) of an axis; numbers as attributes or as inputs, as the opset wants it."""
    if t.opset < 10:
        return t.op("Slice", x, axes=[axis], starts=[start], ends=[stop])
    bounds = [t.integers([number], name) for number, name in ((start, "starts"), (stop, "ends"), (axis, "axes"))]
    return t.op("Slice", x, *bounds)


def pad_below(t: Template, x: Variable, down: int, right: int) -> Variable:
    """[N, C, H, W] with that many rows of zeros below and columns of zeros to the right."""
    if not down and not right:
        return x
    pads = [0, 0, 0, 0, 0, 0, down, right]
    return t.op("Pad", x, t.integers(pads, "pads")) if t.opset >= 11 else t.op("Pad", x, pads=pads)


def into_windows(t: Template, x: Variable, channels: int, side: int) -> Variable:
    """A map whose sides the window divides, [N, channels, H, W], as [N * windows, channels, side, side]."""
    rows, columns = (-(-length // side) for length in t.feature.size)
    if rows == columns == 1:
        return x
    x = transpose(t, reshape(t, x, (0, channels, rows, side, columns, side)), (0, 2, 4, 1, 3, 5))
    return reshape(t, x, (-1, channels, side, side))


def out_of_windows(t: Template, x: Variable, channels: int, side: int) -> Variable:
    """What into_windows does undone, and cut to the size of the site."""
    (height, width), (rows, columns) = t.feature.size, (-(-length // side) for length in t.feature.size)
    if rows > 1 or columns > 1:
        x = transpose(t, reshape(t, x, (-1, rows, columns, channels, side, side)), (0, 3, 1, 4, 2, 5))
        x = reshape(t, x, (0, channels, rows * side, columns * side))
    return cut_to(t, x, (rows * side, columns * side), (height, width))


def cut_to(t: Template, x: Variable, padded: tuple[int, int], size: tuple[int, int]) -> Variable:
    """[N, C, *padded] -> [N, C, *size], without what is below and to the right."""
    for axis, whole, kept in zip((2, 3), padded, size, strict=True):
        x = cut(t, x, axis, 0, kept) if kept < whole else x
    return x


def softmax(t: Template, x: Variable, rank: int) -> Variable:
    """Softmax over the last axis, the only one that means the same before and after opset 13; ``rank`` of x."""
    with t.statistics():
        return t.op("Softmax", x, axis=rank - 1)


def attention(
    t: Template,
    q: gs.Tensor,
    k: gs.Tensor,
    *,
    rank: int = 4,
    bias: Array | None = None,
    added: Sequence[Variable] = (),
) -> Variable:
    """softmax(q k + bias + added) over the keys: q [..., Nq, d], k [..., d, Nk] -> [..., Nq, Nk], of ``rank`` axes.

    The scale is part of q. ``bias``: constant; ``added``: further logits, out of ``product``.
    """
    with t.statistics():
        logits = product(t, q, k, rank)
        for term in added:
            logits = t.add(logits, term)
        if bias is not None:
            logits = t.add(logits, t.constant(bias / logit_unit(t), "attention_bias"))
        if logit_unit(t) != 1:
            logits = t.sub(logits, t.reduce("ReduceMax", logits, (rank - 1,)))
            logits = t.mul(logits, t.constant(np.full([1] * rank, logit_unit(t)), "unit"))
        weights = softmax(t, logits, rank)
    return t.cast(weights)


def product(t: Template, a: gs.Tensor | Array, b: gs.Tensor, rank: int = 4) -> Variable:
    """Logits: the matrix product of two tensors of ``rank`` axes, of which the first may be a constant's values.

    Where they have to be in float16, in units of 256.
    """
    with t.statistics():
        if isinstance(a, np.ndarray):
            a = t.constant(a / logit_unit(t), "position")
        elif logit_unit(t) != 1:
            a = t.mul(a, t.constant(np.full([1] * rank, 1 / logit_unit(t)), "per_unit"))
        return t.op("MatMul", a, b)


def logit_unit(t: Template) -> float:
    """What logits are divided by until their maximum is taken off. After that infinity is harmless: exp gives 0."""
    return 256.0 if t.dtype == "float16" else 1.0


def attend(
    t: Template,
    q: Variable,
    k: Variable,
    v: Variable,
    *,
    bias: Array | None = None,
    added: Sequence[Variable] = (),
) -> Variable:
    """Attention on heads that lie channels first, [N, heads, d, positions], as convolutions leave them; the result too.

    The Transposes of q and v are ones that runtimes take into the matrix products after them.
    """
    turned = (0, 1, 3, 2)
    weights = attention(t, transpose(t, q, turned), k, bias=bias, added=added)
    # not v times the weights turned: that is the large matrix, and turning v and the result costs next to nothing
    return transpose(t, t.op("MatMul", weights, transpose(t, v, turned)), turned)


def attend_in_runs(t: Template, q: Variable, k: Variable, v: Variable, runs: int, key: int, value: int) -> Variable:
    """The same within as many runs of positions, of equal length; ``key``, ``value``: d of q and k, and of v.

    Queries, keys and values lie runs first while they are multiplied: [N, heads, runs, ...].
    """

    def in_runs(x: Variable, width: int, order: Sequence[int]) -> Variable:
        length = t.feature.area // runs if t.feature.static else -1
        return transpose(t, reshape(t, x, (0, 0, width, runs, length)), order)

    rows, columns = (0, 1, 3, 4, 2), (0, 1, 3, 2, 4)
    weights = attention(t, in_runs(q, key, rows), in_runs(k, key, columns), rank=5)
    return transpose(t, t.op("MatMul", weights, in_runs(v, value, rows)), (0, 1, 4, 2, 3))


def unfolded(t: Template, x: Variable, channels: int, kernel: int, *, dilation: int = 1, pads: int = 0) -> Variable:
    """The neighbours of every position: [N, channels, H, W] -> [N, channels * kernel^2, H, W], by rows of the kernel.

    As a convolution of which every kernel has one 1: ONNX has no operator for it, and this one every runtime has.
    """
    taps = np.tile(np.eye(kernel * kernel).reshape(-1, 1, kernel, kernel), (channels, 1, 1, 1))
    dilations = {"dilations": [dilation] * 2} if dilation > 1 else {}
    return t.conv(x, t.constant(taps, "neighbours"), pads=[pads] * 4, group=channels, **dilations)


def attend_to_neighbours(t: Template, q: Variable, k: Variable, v: Variable) -> Variable:
    """softmax(q . k) v over the neighbours of each position: q [N, heads, d, 1, positions], k and v
    [N, heads, d, neighbours, positions] -> [N, heads, d, positions]. The scale is part of q.
    """
    unit = logit_unit(t)
    with t.statistics():
        if unit != 1:
            q = t.mul(q, t.constant(np.full([1] * 5, 1 / unit), "per_unit"))
        logits = t.plain_reduce("ReduceSum", t.mul(q, k), (2,))
        logits = t.sub(logits, t.plain_reduce("ReduceMax", logits, (3,)))
        if unit != 1:
            logits = t.mul(logits, t.constant(np.full([1] * 5, unit), "unit"))
        powers = t.op("Exp", logits)
        weights = t.div(powers, t.plain_reduce("ReduceSum", powers, (3,)))
        found = t.plain_reduce("ReduceSum", t.mul(weights, v), (3,), keepdims=0)
    return t.cast(found)


def flat(t: Template, x: Variable, channels: int | None = None) -> Variable:
    """[N, channels, H, W] -> [N, channels, H * W]; ``channels``: those of the site where not given."""
    return reshape(t, x, (0, channels or t.feature.channels, t.feature.area if t.feature.static else -1))


def like_map(t: Template, x: Variable, channels: int) -> Variable:
    """[N, ..., H * W] -> [N, channels, H, W]; where H and W are dynamic they are read off the site's shape."""
    if t.feature.static:
        return reshape(t, x, (0, channels, *t.feature.size))
    shape = t.op("Shape", t.x, dtype=TensorProto.INT64)
    if channels != t.feature.channels:
        size = t.op("Gather", shape, t.integers([2, 3], "height_width"), dtype=TensorProto.INT64, axis=0)
        start = t.integers([0, channels], "first_axes")
        shape = t.op("Concat", start, size, dtype=TensorProto.INT64, axis=0)
    return t.op("Reshape", x, shape)


def in_heads(t: Template, x: Variable, heads: int, width: int) -> Variable:
    """[N, heads * width, H, W] -> [N, heads, width, H * W]."""
    return reshape(t, x, (0, heads, width, t.feature.area if t.feature.static else -1))


def dense(t: Template, x: Variable, prefix: str, *, bias: bool = True) -> Variable:
    """The linear layer of that prefix on the last of four axes."""
    key = f"{prefix}.weight"
    y = t.op("MatMul", x, t.rows(key, range(t.values(key).shape[0]), transposed=True))
    return t.add(y, t.weight(f"{prefix}.bias", last_axis(t))) if bias else y


def last_axis(t: Template) -> tuple[int, ...]:
    """The shape of a bias for the last of four axes: onnxruntime fuses vectors only.

    OpenCV 5 takes one of at most two axes behind a product, and onnxsim makes a Gemm of a product and a vector.
    """
    if t.target == "onnxruntime":
        return (-1,)
    return (1, -1) if t.since(2) else (1, 1, 1, -1)


def without_separate(
    arrays: Mapping[str, Array], pattern: str, order: Sequence[str], joined: Callable[[re.Match[str]], str]
) -> dict[str, Array]:
    """Parts that a file keeps apart stacked along the first axis, in the ``order`` of the second group of ``pattern``.

    ``joined`` gives the key of the whole. What is not complete, or does not fit together, stays as it is.
    """
    groups: dict[str, dict[str, str]] = {}
    for key in arrays:
        match = re.fullmatch(pattern, key)
        if match is not None:
            groups.setdefault(joined(match), {})[match[2]] = key
    complete = {name: [parts[part] for part in order] for name, parts in groups.items() if set(parts) == set(order)}
    whole = {
        name: keys
        for name, keys in complete.items()
        if len({arrays[key].shape[1:] for key in keys}) == 1 and all(arrays[key].ndim for key in keys)
    }
    taken = {key for keys in whole.values() for key in keys}
    found = {key: values for key, values in arrays.items() if key not in taken}
    return found | {name: np.concatenate([arrays[key] for key in keys]) for name, keys in whole.items()}
