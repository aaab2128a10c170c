"""CAA, Context Anchor Attention: a gate from a chain of average pooling and strip convolutions.

Cai et al., "Poly Kernel Inception Network for Remote Sensing Detection", CVPR 2024, arXiv:2403.06258.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks.block import SATURATED, Array, Block, Setting
from graphsurgery.blocks.initial_weights import bn_shapes, bn_values
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.patterns.attention.activations import silu
from graphsurgery.patterns.attention.initial import torch_default
from graphsurgery.patterns.attention.parts import conv_bn, linear
from graphsurgery.template.template import Template

if TYPE_CHECKING:
    import torch


class ContextAnchorAttention(Block):
    """The strip convolutions have biases and pad with zeros, so that they cannot be joined into one kernel."""

    name = "caa"
    title = "Context Anchor Attention"
    demand = 22
    paper = "Poly Kernel Inception Network for Remote Sensing Detection, CVPR 2024, arXiv:2403.06258"
    reference = "NUST-Machine-Intelligence-Laboratory/PKINet, mmrotate/models/backbones/pkinet.py, CAA"
    formula = "y = x * sigmoid(conv2(dw_kx1(dw_1xk(conv1(avgpool7x7(x))))))"
    untrained = "halves its input; with SiLU the gate is never below 0.43"
    variants: ClassVar[dict[str, str]] = {
        "pkinet": "as PKINet builds it: 1x1 convolutions with biases, no BatchNorm, no activation",
        "bn-silu": "the class's own defaults, which cv-attention and the YOLO ports follow: BatchNorm and SiLU",
    }
    settings = (
        Setting("h_kernel_size", int, 11, "width of the 1xk convolution, odd", minimum=1),
        Setting("v_kernel_size", int, 11, "height of the kx1 convolution, odd", minimum=1),
        Setting("bn_eps", float, 1e-3, "epsilon of the BatchNorms; 1e-3 in PKINet and in Ultralytics", None, 0.0, None,
                ("bn-silu",)),
    )  # fmt: skip
    aliases = ((r"([hv])_conv\.(weight|bias)", r"\1_conv.conv.\2"),)

    @property
    def _norm(self) -> bool:
        return self.variant == "bn-silu"

    @property
    def _kernels(self) -> dict[str, tuple[int, int]]:
        return {
            "h_conv": (1, int(self.values["h_kernel_size"] or 1)),
            "v_conv": (int(self.values["v_kernel_size"] or 1), 1),
        }

    def check(self, feature: FeatureMap) -> None:
        even = [name for name in ("h_kernel_size", "v_kernel_size") if int(self.values[name] or 1) % 2 == 0]
        if even:
            raise BlockError(f"{even[0]} of caa is odd, not {self.values[even[0]]}: an even one would change the size")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, shapes = feature.channels, dict[str, tuple[int, ...]]()
        for layer in ("conv1", "conv2"):
            shapes[f"{layer}.conv.weight"] = (channels, channels, 1, 1)
            shapes |= bn_shapes(f"{layer}.bn", channels) if self._norm else {f"{layer}.conv.bias": (channels,)}
        for layer, kernel in self._kernels.items():
            shapes |= {f"{layer}.conv.weight": (channels, 1, *kernel), f"{layer}.conv.bias": (channels,)}
        return shapes

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return torch_default(self.parameters(feature), rng)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        values = self.initial(feature, np.random.default_rng(0))
        if self._norm:
            return values | bn_values("conv2.bn", feature.channels, 0.0, SATURATED)
        values["conv2.conv.weight"] = np.zeros_like(values["conv2.conv.weight"])
        values["conv2.conv.bias"] = np.full_like(values["conv2.conv.bias"], SATURATED)
        return values

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for layer, name in (("h_conv", "h_kernel_size"), ("v_conv", "v_kernel_size")):
            if len(shape := shapes.get(f"{layer}.conv.weight", ())) == 4:
                found[name] = max(shape[2:])
        return found

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        # as torch, the mean counts the padding
        y = t.op("AveragePool", t.x, kernel_shape=[7, 7], strides=[1, 1], pads=[3] * 4, count_include_pad=1)
        y = self._pointwise(t, y, "conv1")
        for layer, sides in self._kernels.items():
            weight, bias = (t.weight(f"{layer}.conv.{part}") for part in ("weight", "bias"))
            pads = [side // 2 for side in sides] * 2
            y = t.conv(y, weight, bias, pads=pads, group=t.feature.channels)
        return t.mul(t.x, t.sigmoid(self._pointwise(t, y, "conv2")))

    def _pointwise(self, t: Template, x: gs.Variable, layer: str) -> gs.Variable:
        if not self._norm:
            return linear(t, x, f"{layer}.conv")
        return silu(t, conv_bn(t, x, f"{layer}.conv", f"{layer}.bn", float(self.values["bn_eps"] or 0)))

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.caa import ContextAnchorAttention as Module

        kernels = int(self.values["h_kernel_size"] or 1), int(self.values["v_kernel_size"] or 1)
        return Module(feature.channels, str(self.variant), *kernels, bn_eps=float(self.values.get("bn_eps") or 1e-3))
