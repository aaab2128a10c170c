"""BRA: every window attends to the few windows whose mean key fits its mean query best.

Zhu et al., "BiFormer: Vision Transformer with Bi-Level Routing Attention", CVPR 2023, arXiv:2303.08810.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from ..forms import BRA_LAYERS, bra_windows
from .catalogue import CatalogueBlock
from .layers import depthwise, linear
from .transformer import attention, cut_to, pad_below, product, reshape, transpose
from .widths import require_divisor, require_odd, require_static

GATHER, SELECT = "gather", "select"
_TURNED = (0, 1, 2, 4, 3)
"""the last two of five axes exchanged, which runtimes make part of a product"""
_RUN = 8
"""positions of a window that are worth to be copied together"""
_GATHER_FROM = 12
"""the opset from which on GatherND keeps the images of a batch apart"""


class BRA(CatalogueBlock):
    """Windows are routed by the means of x: those of q and k are what a linear layer makes of them, in float32.

    What is read is gathered, or selected by a product with a matrix of ones and zeros where there is no operator.
    """

    name = "bra"
    title = "Bi-Level Routing Attention (BiFormer)"
    demand = 17
    quadratic = True
    paper = "BiFormer: Vision Transformer with Bi-Level Routing Attention, CVPR 2023, arXiv:2303.08810"
    reference = "rayleizhu/BiFormer, ops/bra_legacy.py (official) and ops/bra_nchw.py (nchw)"
    formula = (
        "y = out(o + dw(v)), o = v softmax(q^T k / sqrt(C_qk))^T for each head, over the positions of the topk windows "
        "with the largest product of a window's mean q and their mean k, [q, k, v] = qkv(x)"
    )
    untrained = "a learned term in its place, of about a third of its scale: there is no shortcut"
    variants: ClassVar[dict[str, str]] = {
        "official": "BiLevelRoutingAttention: a fixed number of windows, for which the map is padded",
        "nchw": "nchwBRA: windows of a fixed part of the map, and more of them where that leaves a rest",
    }
    settings = (
        Setting("heads", int, 8, "heads; BiFormer's have 32 channels each", minimum=1),
        Setting("windows", int, 7, "windows along a side of the map", minimum=1),
        Setting("topk", int, 4, "windows that each window reads; 1, 4 and 16 in BiFormer", minimum=1),
        Setting("kernel", int, 3, "side of the depthwise convolution of v; 5 in BiFormer", minimum=1),
        Setting(
            "qk_dim", int, None, "channels of queries and keys; C where not given", minimum=1, variants=("official",)
        ),
    )

    @property
    def _layers(self) -> tuple[str, str]:
        return BRA_LAYERS[str(self.variant)]

    def _keys(self, feature: FeatureMap) -> int:
        return self.integer("qk_dim") or feature.channels

    def _windows(self, feature: FeatureMap) -> list[tuple[int, int]]:
        """How many windows lie along either side, and how long they are."""
        return [bra_windows(str(self.variant), side, self.integer("windows")) for side in feature.size]

    def check(self, feature: FeatureMap) -> None:
        require_static(feature, "bra cuts the map into windows")
        require_divisor(feature, self.integer("heads"), "heads")
        require_odd(self, "kernel", self.integer("kernel"))
        keys, heads, windows, topk = self._keys(feature), *(self.integer(n) for n in ("heads", "windows", "topk"))
        if keys % heads:
            raise BlockError(f"{heads} heads do not divide the {keys} channels of bra's qk_dim", option="settings")
        if self.variant == "nchw" and windows > min(feature.size):
            least = f"set windows to at most {min(feature.size)}, or take bra[official], which pads the map"
            raise BlockError(f"{feature.label} is too small for {windows} windows along a side; {least}")
        (rows, _), (columns, _) = self._windows(feature)
        if topk > rows * columns:
            raise BlockError(f"{self.spelled} has {rows * columns} windows and cannot read {topk}; set topk lower")

    def scores(self, height: int, width: int) -> tuple[int, int]:
        (rows, tall), (columns, wide) = self._windows(FeatureMap(1, height, width))
        return rows * tall * columns * wide, self.integer("topk") * tall * wide

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, side, (first, last) = feature.channels, self.integer("kernel"), self._layers
        ones = () if self.variant == "official" else (1, 1)
        wide = 2 * self._keys(feature) + channels
        return layer_shapes(
            {
                first: (wide, channels, *ones),
                "lepe": (channels, 1, side, side),
                last: (channels, channels, *ones),
            }
        )

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        raise self.no_identity("has no shortcut and cannot leave its input as it is")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        if len(shapes.get("lepe.weight", ())) == 4:
            found["kernel"] = shapes["lepe.weight"][3]
        if self.variant == "official" and len(shapes.get("qkv.qkv.weight", ())) == 2:
            rows, channels = shapes["qkv.qkv.weight"]
            found["qk_dim"] = (rows - channels) // 2
        return found

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return (GATHER,) if feature.batch == 1 or opset >= _GATHER_FROM else (SELECT,)

    def emit(self, t: Template, lowering: str) -> Variable:
        channels, keys, size = t.feature.channels, self._keys(t.feature), t.feature.size
        windows = self._windows(t.feature)
        padded = windows[0][0] * windows[0][1], windows[1][0] * windows[1][1]
        rest = (padded[0] - size[0], padded[1] - size[1])
        x = pad_below(t, t.x, *rest) if self.variant == "official" else t.x
        bounds = {"q": (0, keys), "k": (keys, 2 * keys), "v": (2 * keys, 2 * keys + channels)}
        layers = {name: self._rows(t, range(*bound), name == "q") for name, bound in bounds.items()}
        read = self._routed(t, x, layers["q"], layers["k"], rest)
        q, k, v = (t.conv(x, weight, t.constant(bias, f"{name}.bias")) for name, (weight, bias) in layers.items())
        near = (
            cut_to(t, depthwise(t, v, "lepe"), padded, size) if self.variant == "official" else depthwise(t, v, "lepe")
        )
        if self.variant == "nchw":
            q, k, v = (pad_below(t, each, *rest) for each in (q, k, v))
        o = self._attended(t, q, k, v, read, lowering)
        return linear(t, t.add(cut_to(t, o, padded, size), near), self._layers[1])

    def _rows(self, t: Template, rows: range, scaled: bool) -> tuple[gs.Constant, Array]:
        """Weight and bias of some output channels of the first layer; ``scaled``: times the scale of the logits."""
        layer, factor = self._layers[0], self._keys(t.feature) ** -0.5 if scaled else 1.0
        weight = t.rows(f"{layer}.weight", rows, factor=factor, shape=(len(rows), t.feature.channels, 1, 1))
        return weight, t.values(f"{layer}.bias")[list(rows)] * factor

    def _routed(
        self,
        t: Template,
        x: Variable,
        q: tuple[gs.Constant, Array],
        k: tuple[gs.Constant, Array],
        rest: tuple[int, int],
    ) -> Variable:
        """The numbers of the windows that each reads, [N, windows, topk], int64.

        In float32 where the site is of half precision: which windows are read is all or nothing.
        """
        (rows, _), (columns, _) = self._windows(t.feature)
        with t.statistics():
            means = self._means(t, x, rest)

            def through(weight: gs.Constant, bias: Array) -> Variable:
                own = t.constant(weight.values, "routing.weight") if t.dtype != t.feature.dtype else weight
                y = t.conv(means, own, t.constant(bias, "routing.bias"))
                return reshape(t, y, (0, self._keys(t.feature), rows * columns))

            logits = product(t, transpose(t, through(*q), (0, 2, 1)), through(*k), rank=3)
            number, kinds = self.integer("topk"), [t.onnx_type, TensorProto.INT64]
            if t.opset < 10:
                return t.node("TopK", [logits], kinds, k=number, axis=-1)[1]
            return t.node("TopK", [logits, t.integers([number], "topk")], kinds, axis=-1)[1]

    def _means(self, t: Template, x: Variable, rest: tuple[int, int]) -> Variable:
        """The mean of x over each window, [N, C, rows, columns]; nchw: over what of it lies on the map."""
        (rows, tall), (columns, wide) = self._windows(t.feature)
        if self.variant == "nchw":
            x = pad_below(t, x, *rest)
        if tall * wide > 1:
            x = t.op("AveragePool", x, kernel_shape=[tall, wide], strides=[tall, wide])
        if self.variant == "official" or not any(rest):
            return x
        down, right = np.full((rows, 1), float(tall)), np.full((1, columns), float(wide))
        down[-1], right[:, -1] = tall - rest[0], wide - rest[1]
        return t.mul(x, t.constant((tall * wide / (down * right))[None, None], "share"))

    def _attended(self, t: Template, q: Variable, k: Variable, v: Variable, read: Variable, lowering: str) -> Variable:
        """The padded map of o, [N, C, rows * tall, columns * wide]."""
        (rows, tall), (columns, wide) = self._windows(t.feature)
        heads, channels, keys = self.integer("heads"), t.feature.channels, self._keys(t.feature)
        count, places = rows * columns, tall * wide
        apart, along = (rows, tall, columns, wide), places >= _RUN

        def in_windows(x: Variable, width: int) -> Variable:
            """[N, windows, heads, d, positions]; where a window has few positions, [N, windows, heads, positions, d].

            Runtimes copy what stays together at once.
            """
            if along:
                x = transpose(t, reshape(t, x, (0, heads, width // heads, *apart)), (0, 3, 5, 1, 2, 4, 6))
                return reshape(t, x, (0, count, heads, width // heads, places))
            x = transpose(t, reshape(t, x, (0, width, *apart)), (0, 2, 4, 3, 5, 1))
            return transpose(t, reshape(t, x, (0, count, places, heads, width // heads)), (0, 1, 3, 2, 4))

        def as_read(x: Variable, width: int) -> Variable:
            """The same of what each window reads."""
            x = self._taken(t, reshape(t, in_windows(x, width), (0, count, width * places)), read, lowering)
            if along:
                x = transpose(t, reshape(t, x, (0, count, -1, heads, width // heads, places)), (0, 1, 3, 4, 2, 5))
                return reshape(t, x, (0, count, heads, width // heads, -1))
            x = transpose(t, reshape(t, x, (0, count, -1, heads, places, width // heads)), (0, 1, 3, 2, 4, 5))
            return reshape(t, x, (0, count, heads, -1, width // heads))

        q, k, v = in_windows(q, keys), as_read(k, keys), as_read(v, channels)
        if along:
            weights = attention(t, transpose(t, q, _TURNED), k, rank=5)
            o = t.op("MatMul", v, transpose(t, weights, _TURNED))
            o = reshape(t, o, (0, rows, columns, heads, channels // heads, tall, wide))
            o = transpose(t, o, (0, 3, 4, 1, 5, 2, 6))
        else:
            o = t.op("MatMul", attention(t, q, transpose(t, k, _TURNED), rank=5), v)
            o = reshape(t, o, (0, rows, columns, heads, tall, wide, channels // heads))
            o = transpose(t, o, (0, 3, 6, 1, 4, 2, 5))
        return reshape(t, o, (0, channels, rows * tall, columns * wide))

    def _taken(self, t: Template, x: Variable, read: Variable, lowering: str) -> Variable:
        """Of [N, windows, n] those that each window reads: [N, windows * topk, n], or with the axes apart."""
        (rows, _), (columns, _) = self._windows(t.feature)
        if lowering == GATHER and t.feature.batch == 1:  # an operator that every reader has
            places = t.op("Reshape", read, t.integers([-1], "shape"), dtype=TensorProto.INT64)
            return t.op("Gather", x, places, axis=1)
        if lowering == GATHER:
            places = t.op("Unsqueeze", read, t.integers([3], "axes")) if t.opset >= 13 else None
            if places is None:
                places = t.op("Unsqueeze", read, dtype=TensorProto.INT64, axes=[3])
            return t.op("GatherND", x, places, batch_dims=1)
        wanted = t.op("Reshape", read, t.integers([0, -1, 1], "shape"), dtype=TensorProto.INT64)
        numbers = t.own(np.arange(rows * columns, dtype=np.int64).reshape(1, 1, -1), "numbers")
        picked = t.op("Equal", wanted, numbers, dtype=TensorProto.BOOL)
        one, zero = (t.constant(np.full((1, 1, 1), number), "share") for number in (1.0, 0.0))
        return t.op("MatMul", t.op("Where", picked, one, zero, dtype=t.onnx_type), x)
