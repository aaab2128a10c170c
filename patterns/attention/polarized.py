"""Polarized self-attention: a gate for every channel and one for every position, each from an attention of its own.

Liu et al., "Polarized Self-Attention: Towards High-quality Pixel-wise Regression", arXiv:2107.00782.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphsurgery.blocks import Array, BlockError, FeatureMap, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from .catalogue import CatalogueBlock
from .layers import linear
from .norms import layer_norm
from .transformer import attention, flat, like_map, reshape, softmax, transpose

_LN_EPS = 1e-5
_RIGHT, _LEFT = ("conv_q_right", "conv_v_right"), ("conv_q_left", "conv_v_left")
_CHANNEL, _SPATIAL = ("ch_wq", "ch_wv"), ("sp_wq", "sp_wv")


class Polarized(CatalogueBlock):
    """Products with the map are done first, and the 1x1 convolutions on what is left of it, which is the same:

    sum_n a_n (V x_n + b) = V (sum_n a_n x_n) + b, since the weights a_n add up to 1; mean(Q x) = Q mean(x); and
    q . (V x_n + b) = (V^T q) . x_n + q . b. Of the convolutions of whole maps to C/2 channels only one is left, in s.
    """

    name = "polarized"
    title = "Polarized Self-Attention"
    demand = 43
    paper = "Polarized Self-Attention: Towards High-quality Pixel-wise Regression, arXiv:2107.00782"
    reference = "DeLightCMU/PSA, semantic-segmentation/network/PSA.py (PSA_p and PSA_s)"
    formula = "p: y = g(x) * x + h(x) * x; s: y = h(g(x) * x) * g(x) * x; g: one gate a channel, h: one a position"
    untrained = "p: keeps the scale of its input (two gates of about a half added); s: about a quarter of it"
    variants: ClassVar[dict[str, str]] = {
        "p": "parallel, the official PSA_p: softmax over the positions of the spatial map, no LayerNorm",
        "s": "sequential, the official PSA_s: softmax over the positions of every value map; LayerNorm in between",
        "external-p": "parallel as in External-Attention-pytorch: softmax over channels, LayerNorm, biases",
        "external-s": "sequential as in External-Attention-pytorch",
    }

    @property
    def _external(self) -> bool:
        return str(self.variant).startswith("external")

    def check(self, feature: FeatureMap) -> None:
        if feature.channels % 2:
            raise BlockError(f"polarized halves the channels, and {feature.label} has {feature.channels}")
        if self.variant == "s" and feature.channels < 8:
            raise BlockError(
                f"{self.spelled} takes an eighth of the channels, and {feature.label} has {feature.channels}"
            )

    def warnings(self, feature: FeatureMap) -> list[str]:
        if self.variant == "s" and feature.channels < 16:
            return [
                f"{self.spelled} normalises an eighth of the channels, and {feature.label} has {feature.channels}: a "
                "LayerNorm over one channel gives its bias whatever comes in, so the channel gate is a constant"
            ]
        return []

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, half = feature.channels, feature.channels // 2
        one, down, up = (1, channels, 1, 1), (half, channels, 1, 1), (channels, half, 1, 1)
        if self._external:
            layers = {"ch_wv": down, "ch_wq": one, "ch_wz": up, "ln": (channels,), "sp_wv": down, "sp_wq": down}
            return layer_shapes(layers)
        shapes: dict[str, tuple[int, ...]] = {"conv_q_right.weight": one, "conv_v_right.weight": down}
        if self.variant == "s":
            eighth = half // 4
            shapes |= layer_shapes({"conv_up.0": (eighth, half, 1, 1)})
            shapes |= {"conv_up.1.weight": (eighth, 1, 1), "conv_up.1.bias": (eighth, 1, 1)}
            shapes |= layer_shapes({"conv_up.3": (channels, eighth, 1, 1)})
        else:
            shapes["conv_up.weight"] = up
        return shapes | {"conv_q_left.weight": down, "conv_v_left.weight": down}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shapes, norm = self.parameters(feature), ("ln.", "conv_up.1.")
        values = torch_default({key: shape for key, shape in shapes.items() if not key.startswith(norm)}, rng)
        fresh = {key: np.full(shape, float(key.endswith("weight")), np.float32) for key, shape in shapes.items()}
        return fresh | values

    def emit(self, t: Template, lowering: str) -> Variable:
        by_channel = t.mul(t.x, t.sigmoid(self._channel(t, t.x)))
        if str(self.variant).endswith("p"):
            return t.add(by_channel, t.mul(t.x, t.sigmoid(self._spatial(t, t.x))))
        return t.mul(by_channel, t.sigmoid(self._spatial(t, by_channel)))

    def _channel(self, t: Template, x: Variable) -> Variable:
        """What the channel gate is the sigmoid of, [N, C, 1, 1]."""
        query, value = _CHANNEL if self._external else _RIGHT
        # the bias of the query is the same at every position, and the softmax does not see it
        weight = softmax(t, flat(t, linear(t, x, query, bias=False), 1), 3)
        pooled = t.op("MatMul", flat(t, x), transpose(t, weight, (0, 2, 1)))
        context = linear(t, reshape(t, pooled, (0, t.feature.channels, 1, 1)), value, bias=self._external)
        if self._external:
            return layer_norm(t, linear(t, context, "ch_wz"), "ln", _LN_EPS)
        if self.variant == "p":
            return linear(t, context, "conv_up", bias=False)
        hidden = t.relu(layer_norm(t, linear(t, context, "conv_up.0"), "conv_up.1", _LN_EPS))
        return linear(t, hidden, "conv_up.3")

    def _spatial(self, t: Template, x: Variable) -> Variable:
        """What the spatial gate is the sigmoid of, [N, 1, H, W]."""
        query, value = _SPATIAL if self._external else _LEFT
        half = t.feature.channels // 2
        pooled = linear(t, t.mean_hw(x), query, bias=self._external)
        if self.variant == "s":
            values = softmax(t, flat(t, linear(t, x, value, bias=False), half), 3)
            return like_map(t, t.op("MatMul", reshape(t, pooled, (0, 1, half)), values), 1)
        if self._external:
            pooled = reshape(t, softmax(t, reshape(t, pooled, (0, 1, half)), 3), (0, half, 1, 1))
        turned = t.rows(f"{value}.weight", range(half), transposed=True, shape=(t.feature.channels, half, 1, 1))
        row, values = reshape(t, t.conv(pooled, turned), (0, 1, t.feature.channels)), flat(t, x)
        if self.variant == "p":  # logits that grow with the square of x
            return like_map(t, attention(t, row, values, rank=3), 1)
        context = t.op("MatMul", row, values)
        bias = t.conv(pooled, t.weight(f"{value}.bias", (1, half, 1, 1)))
        return t.add(like_map(t, context, 1), bias)
