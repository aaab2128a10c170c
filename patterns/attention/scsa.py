"""SCSA: gates per row and per column from four widths of context, then attention among channels.

Si et al., "SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention", arXiv:2407.05128.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt, sqrt
from typing import Any

import numpy as np

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from . import norms, onnxruntime_forms
from .catalogue import CatalogueBlock
from .transformer import softmax
from .widths import odd_sizes

_EPS = 1e-5
_QUARTERS = ("local_dwc", "global_dwc_s", "global_dwc_m", "global_dwc_l")
"""the layer of each quarter of the channels"""
_KERNELS = "3,5,7,9"
_WHOLE_MAP = -1


class SpatialChannelSynergisticAttention(CatalogueBlock):
    """The four depthwise kernels, each for a quarter of the channels, are one of the widest with zeros around the
    narrower ones. The mean over positions of attention times v is attention times the mean of v; and q, k and v are
    per-channel multiples of one normalised map.
    """

    name = "scsa"
    title = "Spatial and Channel Synergistic Attention"
    demand = 23
    paper = "SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention, arXiv:2407.05128"
    reference = "HZAI-ZJNU/SCSA, mmpretrain/models/attentions/SCSA.py"
    formula = (
        "z = x * sigmoid(GN4(dw(mean over W))) * sigmoid(GN4(dw(mean over H))); n = GN1(avgpool(z)); "
        "y = z * sigmoid(mean of softmax(q k^T / sqrt d) v), q, k, v = n times one number per channel"
    )
    untrained = "scales its input to about 0.18"
    settings = (
        Setting(
            "head_num", int, 8, "heads of the channel attention; the code has no default, its runs use 8", minimum=1
        ),
        Setting(
            "window_size",
            int,
            7,
            "side of the averaged windows, and their stride; -1: the whole map",
            minimum=_WHOLE_MAP,
        ),
        Setting("qkv_bias", bool, False, "whether q, k and v have biases"),
        Setting(
            "group_kernel_sizes",
            str,
            _KERNELS,
            "lengths of the kernels of the four quarters, odd",
            later=True,
        ),
        Setting(
            "down_sample_mode",
            str,
            "avg_pool",
            "what a window becomes: its mean, its maximum, or a linear map of all that is in it",
            choices=("avg_pool", "max_pool", "recombination"),
            later=True,
        ),
        Setting(
            "gate_layer",
            str,
            "sigmoid",
            "of the gates; softmax is over rows, columns and channels",
            choices=("sigmoid", "softmax"),
            later=True,
        ),
    )

    @property
    def _kernels(self) -> dict[str, int]:
        """Layer -> length of its kernel."""
        sizes = odd_sizes(self, "group_kernel_sizes", _KERNELS, len(_QUARTERS))
        return dict(zip(_QUARTERS, sizes, strict=True))

    @property
    def _softmax(self) -> bool:
        return self.text("gate_layer") == "softmax"

    @property
    def _recombines(self) -> bool:
        return self.text("down_sample_mode") == "recombination" and self.integer("window_size") != _WHOLE_MAP

    def check(self, feature: FeatureMap) -> None:
        channels, heads, window = feature.channels, self.integer("head_num"), self.integer("window_size")
        for parts, what in ((4, "four quarters"), (heads, f"{heads} heads")):
            if channels % parts:
                raise BlockError(f"{feature.label} has {channels} channels, which do not make {what}")
        _ = self._kernels
        if window == 0:
            raise BlockError("window_size of scsa is at least 1, or -1 for the whole map, not 0", option="settings")
        sides = [side for side in (feature.height, feature.width) if side is not None]
        if self._recombines and any(side % window for side in sides):
            raise BlockError(
                f"scsa recombines windows of {window} x {window}, and those do not divide {feature.label}: give a "
                f"window_size that does"
            )
        if any(side < window for side in sides):
            raise BlockError(
                f"scsa averages windows of {window} x {window}, and {feature.label} has a side of {min(sides)}; "
                f"give a window_size of at most that"
            )

    def warnings(self, feature: FeatureMap) -> list[str]:
        window = self.integer("window_size")
        if feature.static or window == _WHOLE_MAP:
            return []
        return [f"scsa averages windows of {window} x {window}: a smaller map has none, and the result is no number"]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels = feature.channels
        layers: dict[str, tuple[int, ...]] = {key: (channels // 4, 1, k) for key, k in self._kernels.items()}
        layers |= dict.fromkeys(("norm_h", "norm_w", "norm"), (channels,))
        per_channel = dict.fromkeys("qkv", (channels, 1, 1, 1))
        shapes = layer_shapes(layers) | layer_shapes(per_channel, bias=self.flag("qkv_bias"))
        if self._recombines:
            shapes["conv_d.weight"] = (channels, channels * self.integer("window_size") ** 2, 1, 1)
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if self._softmax:
            raise self.no_identity("has gates by softmax, which sum to 1, and cannot leave its input as it is")
        known: dict[str, float] = {"v.weight": 1, "q.weight": 0, "k.weight": 0}  # no logit leaves float16
        for layer in ("norm_h", "norm_w", "norm"):
            known |= {f"{layer}.weight": 0, f"{layer}.bias": SATURATED}
        biases = {"q.bias": 0, "k.bias": 0, "v.bias": 0} if self.flag("qkv_bias") else {}
        return self.with_constants(feature, known | biases)

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {"qkv_bias": "q.bias" in shapes} if "q.weight" in shapes else {}
        lengths = [shapes[f"{layer}.weight"][-1] for layer in _QUARTERS if f"{layer}.weight" in shapes]
        if len(lengths) == len(_QUARTERS):
            found["group_kernel_sizes"] = ",".join(map(str, lengths))
        if "conv_d.weight" in shapes:
            outputs, inputs, *_ = shapes["conv_d.weight"]
            found |= {"down_sample_mode": "recombination", "window_size": isqrt(inputs // outputs)}
        return found

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return onnxruntime_forms.with_crossed(norms.lowerings(feature, opset))

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return onnxruntime_forms.crossed_where_faster(t, lowerings[0])

    def emit(self, t: Template, lowering: str) -> Variable:
        norm_form = lowering.split("+")[0]
        channels, widest = t.feature.channels, max(self._kernels.values())
        kernel = np.concatenate([_widened(t.kept(f"{layer}.weight"), widest) for layer in _QUARTERS])
        bias = t.constant(np.concatenate([t.kept(f"{layer}.bias") for layer in _QUARTERS]), "dwc.bias")
        gates = []
        for side, norm in ((2, "norm_h"), (3, "norm_w")):
            shape = (widest, 1) if side == 2 else (1, widest)
            pads = [shape[0] // 2, shape[1] // 2] * 2
            weight = t.constant(kernel.reshape(channels, 1, *shape), "dwc.weight")
            strip = t.conv(onnxruntime_forms.strip_mean(t, 5 - side), weight, bias, pads=pads, group=channels)
            gamma, beta = t.values(f"{norm}.weight"), t.values(f"{norm}.bias")
            # a softmax is taken along the last axis
            strip = norms.group_norm(t, strip, 4, gamma, beta, _EPS, norm_form, 3 if self._softmax else side)
            gates.append(self._softmax_of(t, strip, side) if self._softmax else t.sigmoid(strip))
        z = onnxruntime_forms.gated(t, t.x, gates[0], gates[1], lowering)
        return t.mul(z, self._among_channels(t, self._downsampled(t, z), norm_form))

    def _softmax_of(self, t: Template, strip: Variable, side: int) -> Variable:
        """The softmax over the positions of a strip [N, C, 1, l]: [N, C, l, 1] for ``side`` 2."""
        gate = t.cast(softmax(t, strip, 4))
        return t.op("Reshape", gate, t.integers([0, t.feature.channels, -1, 1], "strip")) if side == 2 else gate

    def _downsampled(self, t: Template, z: Variable) -> Variable:
        """One position for each window."""
        window, channels = self.integer("window_size"), t.feature.channels
        if window == _WHOLE_MAP:
            return t.mean_hw(z)
        steps: dict[str, Any] = {"strides": [window] * 2}
        if self._recombines:  # all that is in a window as channels, then 1x1: a convolution with windows as its kernels
            return t.conv(z, t.weight("conv_d.weight", (channels, channels, window, window)), **steps)
        mean = self.text("down_sample_mode") == "avg_pool"
        return t.op("AveragePool" if mean else "MaxPool", z, kernel_shape=[window] * 2, **steps)

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
        if self._softmax:
            attended = softmax(t, t.op("Reshape", attended, t.integers([0, 1, 1, channels], "logits")), 4)
            return t.cast(t.op("Reshape", attended, t.integers([0, channels, 1, 1], "gate")))
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


def _widened(kernel: Array, widest: int) -> Array:
    """[n, 1, k] with zeros on both sides, up to the widest kernel."""
    side = (widest - kernel.shape[2]) // 2
    return np.pad(kernel, ((0, 0), (0, 0), (side, side)))
