"""SCSA: gates per row and per column from four widths of context, then attention among channels.

Si et al., "SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention", arXiv:2407.05128.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from . import norms, onnxruntime_forms
from .catalogue import CatalogueBlock
from .transformer import softmax

_EPS = 1e-5
_QUARTERS = {"local_dwc": 3, "global_dwc_s": 5, "global_dwc_m": 7, "global_dwc_l": 9}
_WIDEST = max(_QUARTERS.values())


class SpatialChannelSynergisticAttention(CatalogueBlock):
    """The four depthwise kernels, each for a quarter of the channels, are one of the widest with zeros around the
    narrower ones. The mean over positions of attention times v is attention times the mean of v; and q, k and v are
    per-channel multiples of one normalised map.
    """

    name = "scsa"
    title = "Spatial and Channel Synergistic Attention"
    demand = 23
    paper = "SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention, arXiv:2407.05128"
    reference = "HZAI-ZJNU/SCSA, mmpretrain/models/attentions/SCSA.py (average pooling)"
    formula = (
        "z = x * sigmoid(GN4(dw(mean over W))) * sigmoid(GN4(dw(mean over H))); n = GN1(avgpool(z)); "
        "y = z * sigmoid(mean of softmax(q k^T / sqrt d) v), q, k, v = n times one number per channel"
    )
    untrained = "scales its input to about 0.18"
    settings = (
        Setting(
            "head_num", int, 8, "heads of the channel attention; the code has no default, its runs use 8", minimum=1
        ),
        Setting("window_size", int, 7, "side of the averaged windows, and their stride", minimum=1),
        Setting("qkv_bias", bool, False, "whether q, k and v have biases"),
    )

    def check(self, feature: FeatureMap) -> None:
        channels, heads, window = feature.channels, self.integer("head_num"), self.integer("window_size")
        for parts, what in ((4, "four quarters"), (heads, f"{heads} heads")):
            if channels % parts:
                raise BlockError(f"{feature.label} has {channels} channels, which do not make {what}")
        sides = [side for side in (feature.height, feature.width) if side is not None]
        if any(side < window for side in sides):
            raise BlockError(
                f"scsa averages windows of {window} x {window}, and {feature.label} has a side of {min(sides)}; "
                f"give a window_size of at most that"
            )

    def warnings(self, feature: FeatureMap) -> list[str]:
        window = self.integer("window_size")
        if feature.static:
            return []
        return [f"scsa averages windows of {window} x {window}: a smaller map has none, and the result is no number"]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels = feature.channels
        layers: dict[str, tuple[int, ...]] = {key: (channels // 4, 1, k) for key, k in _QUARTERS.items()}
        layers |= dict.fromkeys(("norm_h", "norm_w", "norm"), (channels,))
        per_channel = dict.fromkeys("qkv", (channels, 1, 1, 1))
        return layer_shapes(layers) | layer_shapes(per_channel, bias=self.flag("qkv_bias"))

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        known: dict[str, float] = {"v.weight": 1, "q.weight": 0, "k.weight": 0}  # no logit leaves float16
        for layer in ("norm_h", "norm_w", "norm"):
            known |= {f"{layer}.weight": 0, f"{layer}.bias": SATURATED}
        biases = {"q.bias": 0, "k.bias": 0, "v.bias": 0} if self.flag("qkv_bias") else {}
        return self.with_constants(feature, known | biases)

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        return {"qkv_bias": "q.bias" in shapes} if "q.weight" in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return onnxruntime_forms.with_crossed(norms.lowerings(feature, opset))

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return onnxruntime_forms.crossed_where_faster(t, lowerings[0])

    def emit(self, t: Template, lowering: str) -> Variable:
        norm_form = lowering.split("+")[0]
        channels, window = t.feature.channels, self.integer("window_size")
        kernel = np.concatenate([_widened(t.kept(f"{layer}.weight")) for layer in _QUARTERS])
        bias = t.constant(np.concatenate([t.kept(f"{layer}.bias") for layer in _QUARTERS]), "dwc.bias")
        gates = []
        for side, norm in ((2, "norm_h"), (3, "norm_w")):
            shape = (_WIDEST, 1) if side == 2 else (1, _WIDEST)
            pads = [shape[0] // 2, shape[1] // 2] * 2
            weight = t.constant(kernel.reshape(channels, 1, *shape), "dwc.weight")
            strip = t.conv(onnxruntime_forms.strip_mean(t, 5 - side), weight, bias, pads=pads, group=channels)
            gamma, beta = t.values(f"{norm}.weight"), t.values(f"{norm}.bias")
            strip = norms.group_norm(t, strip, 4, gamma, beta, _EPS, norm_form, side)
            gates.append(t.sigmoid(strip))
        z = onnxruntime_forms.gated(t, t.x, gates[0], gates[1], lowering)
        pooled = t.op("AveragePool", z, kernel_shape=[window] * 2, strides=[window] * 2)
        return t.mul(z, self._among_channels(t, pooled, norm_form))

    def _among_channels(self, t: Template, pooled: Variable, lowering: str) -> Variable:
        """The gate of the channel attention: [N, C, h, w] -> [N, C, 1, 1]."""
        channels, heads = t.feature.channels, self.integer("head_num")
        flat = t.op("Reshape", pooled, t.integers([0, 1, -1, 1], "flat"))
        normal = norms.instance_norm(t, flat, np.ones(1), np.zeros(1), _EPS, lowering)
        normal = t.op("Reshape", normal, t.integers([0, heads, channels // heads, -1], "heads"))
        query = self._projected(t, "q", normal, 1 / sqrt(channels // heads))
        key = t.op("Transpose", self._projected(t, "k", normal), perm=[0, 1, 3, 2])
        value = self._projected(t, "v", t.reduce("ReduceMean", normal, (3,)))
        attended = t.op("MatMul", softmax(t, t.op("MatMul", query, key), 4), value)
        return t.sigmoid(t.op("Reshape", attended, t.integers([0, channels, 1, 1], "gate")))

    def _projected(self, t: Template, layer: str, normal: Variable, factor: float = 1.0) -> Variable:
        """The norm's affine and the layer's number per channel in one, on [N, heads, d, *]."""
        weight = t.values(f"{layer}.weight").reshape(-1) * factor
        scale, shift = weight * t.values("norm.weight"), weight * t.values("norm.bias")
        if self.values["qkv_bias"]:
            shift = shift + t.values(f"{layer}.bias") * factor
        shape = (1, self.integer("head_num"), -1, 1)
        scaled = t.mul(normal, t.constant(scale.reshape(shape), f"{layer}.scale"))
        return t.add(scaled, t.constant(shift.reshape(shape), f"{layer}.shift"))


def _widened(kernel: Array) -> Array:
    """[n, 1, k] with zeros on both sides, up to the widest kernel."""
    side = (_WIDEST - kernel.shape[2]) // 2
    return np.pad(kernel, ((0, 0), (0, 0), (side, side)))
