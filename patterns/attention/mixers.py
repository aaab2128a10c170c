"""What two variants of AIFI attend with: SwiftFormer's additive attention and LITv2's HiLo.

Shaker et al., "SwiftFormer: Efficient Additive Attention for Transformer-based Real-time Mobile Vision Applications",
ICCV 2023, arXiv:2303.15446; Pan et al., "Fast Vision Transformers with HiLo Attention", NeurIPS 2022, arXiv:2205.13213.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsurgery.blocks import Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from ..forms import HiLoHeads
from .layers import linear, linear_rows
from .norms import unit_length
from .transformer import (
    attend,
    attention,
    concat,
    cut_to,
    dense,
    in_heads,
    last_axis,
    like_map,
    pad_below,
    reshape,
    transpose,
)

Shapes = dict[str, tuple[int, ...]]
_TINY = 1e-12
"""what torch's normalize divides by at least"""
_TOKENS, _CHANNELS = 2, 3


def additive_parameters(prefix: str, channels: int) -> Shapes:
    """Of SwiftFormer's attention with one head."""
    square = (channels, channels)
    first = layer_shapes({f"{prefix}.to_query": square, f"{prefix}.to_key": square})
    last = layer_shapes({f"{prefix}.Proj": square, f"{prefix}.final": square})
    return first | {f"{prefix}.w_g": (channels, 1)} | last


def additive(t: Template, tokens: Variable, prefix: str) -> Variable:
    """final(Proj(g * k) + q) of tokens [N, 1, positions, C]; q and k of length 1, g a sum of all q."""
    channels = t.feature.channels
    query, key = dense(t, tokens, f"{prefix}.to_query"), dense(t, tokens, f"{prefix}.to_key")
    with t.statistics():
        q, k = (unit_length(t, each, _CHANNELS, _TINY) for each in (query, key))
        weights = t.op("MatMul", q, t.weight(f"{prefix}.w_g"))
        # the authors multiply the weights with a scale, of which their length leaves nothing
        shares = unit_length(t, weights, _TOKENS, _TINY * channels**0.5)
        g = t.op("MatMul", transpose(t, shares, (0, 1, 3, 2)), q)
        scaled = t.mul(k, g)
    return dense(t, t.add(dense(t, t.cast(scaled), f"{prefix}.Proj"), t.cast(q)), f"{prefix}.final")


@dataclass(frozen=True)
class HiLo:
    """LITv2's attention on a map: within windows, and of every position to the means of all windows."""

    prefix: str
    heads: HiLoHeads
    window: int
    bias: bool
    """whether q, k and v have biases"""

    def parameters(self, channels: int) -> Shapes:
        width = channels // self.heads.count
        low, high = self.heads.low * width, self.heads.high * width
        shapes: Shapes = {}
        if low:
            shapes |= layer_shapes({f"{self.prefix}.l_q": (low, channels)}, bias=self.bias)
            shapes |= layer_shapes({f"{self.prefix}.l_kv": (2 * low, channels)}, bias=self.bias)
            shapes |= layer_shapes({f"{self.prefix}.l_proj": (low, low)})
        if high:
            shapes |= layer_shapes({f"{self.prefix}.h_qkv": (3 * high, channels)}, bias=self.bias)
            shapes |= layer_shapes({f"{self.prefix}.h_proj": (high, high)})
        return shapes

    def emit(self, t: Template) -> Variable:
        """[N, C, H, W] of the site -> the same, first the channels of the windows."""
        down, right = (-side % self.window for side in t.feature.size)
        padded = pad_below(t, t.x, down, right)
        parts = [self._high(t, padded)] if self.heads.high else []
        parts += [self._low(t, padded)] if self.heads.low else []
        return concat(t, parts, 1) if len(parts) > 1 else parts[0]

    def _high(self, t: Template, x: Variable) -> Variable:
        heads, side, channels = self.heads.high, self.window, t.feature.channels
        head, (rows, columns) = channels // self.heads.count, (-(-length // side) for length in t.feature.size)
        width, count, places = heads * head, rows * columns, side * side
        tokens = transpose(t, reshape(t, x, (0, channels, count * places)), (0, 2, 1))
        parts = []
        for number, factor in enumerate((head**-0.5, 1.0, 1.0)):
            own = range(number * width, (number + 1) * width)
            y = t.op("MatMul", tokens, t.rows(f"{self.prefix}.h_qkv.weight", own, factor=factor, transposed=True))
            if self.bias:
                bias = t.values(f"{self.prefix}.h_qkv.bias")[list(own)] * factor
                y = t.add(y, t.constant(bias.reshape(last_axis(t)), f"{self.prefix}.h_qkv.bias"))
            y = transpose(t, reshape(t, y, (0, rows, side, columns, side, heads, head)), (0, 1, 3, 5, 2, 4, 6))
            parts.append(reshape(t, y, (0, count, heads, places, head)))
        q, k, v = parts
        o = t.op("MatMul", attention(t, q, transpose(t, k, (0, 1, 2, 4, 3)), rank=5), v)
        o = transpose(t, reshape(t, o, (0, rows, columns, heads, side, side, head)), (0, 1, 4, 2, 5, 3, 6))
        o = transpose(t, reshape(t, o, (0, count * places, width)), (0, 2, 1))
        o = reshape(t, o, (0, width, rows * side, columns * side))
        return linear(t, cut_to(t, o, (rows * side, columns * side), t.feature.size), f"{self.prefix}.h_proj")

    def _low(self, t: Template, x: Variable) -> Variable:
        heads, side = self.heads.low, self.window
        head = t.feature.channels // self.heads.count
        width = heads * head
        if side > 1:
            x = t.op("AveragePool", x, kernel_shape=[side, side], strides=[side, side])
        places = (-(-t.feature.size[0] // side)) * (-(-t.feature.size[1] // side))
        q = linear_rows(t, t.x, f"{self.prefix}.l_q", range(width), bias=self.bias, factor=head**-0.5)
        k, v = (
            reshape(
                t,
                linear_rows(t, x, f"{self.prefix}.l_kv", range(number * width, (number + 1) * width), bias=self.bias),
                (0, heads, head, places),
            )
            for number in (0, 1)
        )
        o = like_map(t, attend(t, in_heads(t, q, heads, head), k, v), width)
        return linear(t, o, f"{self.prefix}.l_proj")
