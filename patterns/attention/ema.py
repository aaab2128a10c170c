"""EMA, Efficient Multi-scale Attention: a gate per group of channels from a pooled and a convolved view of it.

Ouyang et al., "Efficient Multi-Scale Attention Module with Cross-Spatial Learning", ICASSP 2023, arXiv:2305.13563.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from . import norms, onnxruntime_forms
from .catalogue import CatalogueBlock
from .transformer import cut, softmax

_EPS = 1e-5
_RUNNING_AVERAGE = re.compile(r"decay|momentum|tau|beta|warmup|(num_)?updates?|shadow.*|(.*\.)?ema(_model)?\..*")
_NOT_THIS = (
    "ema is the Efficient Multi-scale Attention of arXiv:2305.13563; the exponential moving average of a training "
    "run's weights is no block: it comes with the model that was exported"
)


class EfficientMultiscaleAttention(CatalogueBlock):
    """The published code folds groups into the batch, [N*G, k, H, W]. Here they are groups of convolutions and of
    products, so that the batch stays what it is.

    With p1 and p2 the softmax over a group's channels of the means of x1 (normalised) and x2 (convolved):
    w = sum p1 * x2 + sum p2 * x1. The mean of a normalised channel is its shift, so that p1 is a constant and
    sum p1 * x2 is one convolution to a single channel. Where the height is known, the means of x2 come from the
    column means and the first and last row: mean over H of conv3x3(x) is a convolution of those three rows.
    """

    name = "ema"
    title = "Efficient Multi-scale Attention (not the moving average of weights)"
    demand = 8
    paper = "Efficient Multi-Scale Attention Module with Cross-Spatial Learning, ICASSP 2023, arXiv:2305.13563"
    reference = "YOLOonMe/EMA-attention-module, EMA_attention_module"
    formula = (
        "per group g of C/factor channels: y = g * sigmoid(sum p1 x2 + sum p2 x1), x1 = GN(g * sigmoid(c1(mean W)) "
        "* sigmoid(c1(mean H))), x2 = conv3x3(g), p = softmax over channels of the mean over H, W"
    )
    untrained = "scales its input to between 0.50 and 0.57"
    settings = (
        Setting("factor", int, 32, "groups; the common YOLO port has 8", minimum=1),
        Setting("group_channels", int, None, "channels of a group; overrules the factor", minimum=1),
    )

    def __init__(self, variant: str | None = None, **values: object) -> None:
        if any(_RUNNING_AVERAGE.fullmatch(key) for key in values):
            raise BlockError(_NOT_THIS)
        super().__init__(variant, **values)

    def _groups(self, feature: FeatureMap) -> int:
        given = self.values["group_channels"]
        return feature.channels // int(given) if given else self.integer("factor")

    def _width(self, feature: FeatureMap) -> int:
        return int(self.values["group_channels"] or feature.channels // self._groups(feature))

    def check(self, feature: FeatureMap) -> None:
        given, channels = self.values["group_channels"], feature.channels
        if channels % int(given or self.values["factor"] or 1):
            parts = f"groups of {given} channels" if given else f"a factor of {self.values['factor']}"
            raise BlockError(
                f"{feature.label} has {channels} channels, which {parts} does not divide into equal groups"
            )

    def warnings(self, feature: FeatureMap) -> list[str]:
        constant = "ema with one channel in a group: its softmax over the channels of a group is the constant 1"
        return [constant] if self._width(feature) == 1 else []

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        k = self._width(feature)
        return layer_shapes({"conv1x1": (k, k, 1, 1), "conv3x3": (k, k, 3, 3), "gn": (k,)})

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {"conv3x3": SATURATED, "gn": 0.0})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if any(_RUNNING_AVERAGE.fullmatch(key) for key in shapes):
            raise BlockError(_NOT_THIS)
        return {"group_channels": shapes["conv1x1.weight"][0]} if "conv1x1.weight" in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return onnxruntime_forms.with_crossed(norms.of_maps(feature, opset))

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return onnxruntime_forms.crossed_where_faster(t, norms.choose(t, onnxruntime_forms.uncrossed(lowerings)))

    def emit(self, t: Template, lowering: str) -> Variable:
        groups, k = self._groups(t.feature), self._width(t.feature)
        column_means = onnxruntime_forms.strip_mean(t, 2)
        means = t.op("Reshape", self._means(t, column_means), t.integers([0, groups, 1, k], "row_shape"))
        p2 = softmax(t, means, 4)
        gated = self._gated(t, column_means, lowering)
        if not t.feature.static:
            return self._by_convolutions(t, gated, p2, lowering)

        def split(x: gs.Tensor, channels: int) -> Variable:
            return t.op("Reshape", x, t.integers([0, groups, channels, t.feature.area], "group_shape"))

        normal, scale, shift = self._normal(t, gated, p2, lowering.split("+")[0])
        weights = t.mul(p2, t.op("Reshape", scale, t.integers([0, groups, 1, k], "row_shape"))) if scale else p2
        logits = t.add(t.op("MatMul", weights, split(normal, k)), split(self._mixed(t, lowering), 1))
        gate = t.sigmoid(t.add(logits, shift) if shift else logits)
        y = t.mul(split(t.x, k), gate)
        return t.op("Reshape", y, t.integers([0, t.feature.channels, *t.feature.size], "shape"))

    def _by_convolutions(self, t: Template, gated: Variable, p2: Variable, lowering: str) -> Variable:
        """The end of the block where height and width are not known: sums over a group, and copies to its channels, by
        1x1 convolutions with ones.
        """
        groups, k, channels = self._groups(t.feature), self._width(t.feature), t.feature.channels
        normal, scale, shift = self._normal(t, gated, p2, lowering.split("+")[0])
        weights = t.op("Reshape", p2, t.integers([0, channels, 1, 1], "column_shape"))
        weights = t.mul(weights, scale) if scale else weights
        ones = t.constant(np.ones((groups, k, 1, 1)), "sum")
        logits = t.add(t.conv(t.mul(normal, weights), ones, group=groups), self._mixed(t, lowering))
        gate = t.sigmoid(t.add(logits, shift) if shift else logits)
        return t.mul(t.x, t.conv(gate, t.constant(np.ones((channels, 1, 1, 1)), "copy"), group=groups))

    def _mixed(self, t: Template, lowering: str) -> Variable:
        """sum over a group's channels of p1 * conv3x3: [N, G, H, W].

        onnxruntime copies each channel nine times for a grouped convolution; for the same one transposed only the sums.
        """
        p1 = np.exp(t.values("gn.bias") - t.values("gn.bias").max())
        p1 /= p1.sum()
        groups, kernel = self._groups(t.feature), np.tensordot(p1, t.values("conv3x3.weight"), 1)
        bias = t.constant(np.full(groups, p1 @ t.values("conv3x3.bias")), "conv3x3.mixed_bias")
        if lowering.endswith(onnxruntime_forms.CROSSED):
            turned = t.constant(_repeat(kernel[:, None, ::-1, ::-1], groups), "conv3x3.mixed_weight")
            attributes: dict[str, Any] = {"kernel_shape": [3, 3], "group": groups, "pads": [1, 1, 1, 1]}
            return t.op("ConvTranspose", t.x, turned, bias, **attributes)
        weight = t.constant(_repeat(kernel[None], groups), "conv3x3.mixed_weight")
        return t.conv(t.x, weight, bias, group=groups, pads=[1, 1, 1, 1])

    def _gated(self, t: Template, column_means: Variable, lowering: str) -> Variable:
        """g * sigmoid(conv1x1(mean over W)) * sigmoid(conv1x1(mean over H)): [N, C, H, W]."""
        groups = self._groups(t.feature)
        weight = t.constant(_repeat(t.kept("conv1x1.weight"), groups), "conv1x1.weight")
        bias = t.constant(_repeat(t.kept("conv1x1.bias"), groups), "conv1x1.bias")
        strips = (onnxruntime_forms.strip_mean(t, 3), column_means)
        rows, columns = (t.sigmoid(t.conv(strip, weight, bias, group=groups)) for strip in strips)
        return onnxruntime_forms.gated(t, t.x, rows, columns, lowering)

    def _means(self, t: Template, column_means: Variable) -> Variable:
        """Mean over H and W of conv3x3: [N, C, 1, 1]."""
        groups, kernel = self._groups(t.feature), t.values("conv3x3.weight")
        bias = t.constant(_repeat(t.values("conv3x3.bias"), groups), "conv3x3.bias")
        height = t.feature.height
        if height is None:
            weight = t.constant(_repeat(kernel, groups), "conv3x3.weight")
            return t.mean_hw(t.conv(t.x, weight, bias, group=groups, pads=[1, 1, 1, 1]))
        # the upper row of the kernel never sees the last row of the map, nor the lower the first
        rows = np.stack([kernel.sum(axis=2), -kernel[:, :, 0] / height, -kernel[:, :, 2] / height], axis=2)
        weight = t.constant(_repeat(rows, groups), "conv3x3.row_weight")
        if t.since(2):  # pnnx takes the first of several places of a Gather for all
            ends = [cut(t, t.x, 2, height - 1, height), cut(t, t.x, 2, 0, 1)]
        else:
            ends = [t.op("Gather", t.x, t.integers([height - 1, 0], "ends"), axis=2)]
        strip = t.op("Concat", column_means, *ends, axis=2)
        return t.reduce("ReduceMean", t.conv(strip, weight, bias, group=groups, pads=[0, 1, 0, 1]), (3,))

    def _normal(
        self, t: Template, gated: Variable, p2: Variable, lowering: str
    ) -> tuple[Variable, Variable | None, Variable | None]:
        """(z, s, b) with sum over a group's channels of p2 * GroupNorm(gated) = sum of p2 * s * z, plus b.

        z is [N, C, H, W], s [N, C, 1, 1], b [N, G, 1, 1]; the latter two are None where z is the GroupNorm itself.
        """
        groups, k = self._groups(t.feature), self._width(t.feature)
        gamma, beta = _repeat(t.values("gn.weight"), groups), t.values("gn.bias")
        if lowering == norms.INSTANCE_NORM:
            return norms.instance_norm(t, gated, gamma, _repeat(beta, groups), _EPS, lowering), None, None
        centred, deviation = norms.statistics(t, gated, _EPS)
        scale = t.div(t.constant(gamma.reshape(1, -1, 1, 1), "gn.weight"), deviation)
        return centred, scale, t.op("MatMul", p2, t.constant(beta.reshape(1, 1, k, 1), "gn.bias"))

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"factor": self._groups(feature)}


def _repeat(values: Array, groups: int) -> Array:
    """The same parameters for each group, along the first axis."""
    return np.concatenate([values] * groups)
