"""CAA, Context Anchor Attention: a gate from a chain of average pooling and strip convolutions.

Cai et al., "Poly Kernel Inception Network for Remote Sensing Detection", CVPR 2024, arXiv:2403.06258.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from .activations import silu
from .catalogue import CatalogueBlock
from .layers import conv_bn, depthwise, linear
from .widths import require_odd


class ContextAnchorAttention(CatalogueBlock):
    """The strip convolutions have biases and pad with zeros, so that they cannot be joined into one kernel."""

    name = "caa"
    title = "Context Anchor Attention"
    demand = 22
    paper = "Poly Kernel Inception Network for Remote Sensing Detection, CVPR 2024, arXiv:2403.06258"
    reference = "NUST-Machine-Intelligence-Laboratory/PKINet, mmrotate/models/backbones/pkinet.py, CAA"
    formula = "y = x * sigmoid(conv2(dw_kx1(dw_1xk(conv1(avgpool7x7(x))))))"
    untrained = "halves its input; with SiLU the gate is never below 0.43"
    remarks = (
        "the authors' class returns the sigmoid alone, and PKINet multiplies another tensor by it, z + z * caa(y); "
        "times x is what the YOLO ports do",
    )
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
            "h_conv": (1, self.integer("h_kernel_size")),
            "v_conv": (self.integer("v_kernel_size"), 1),
        }

    def check(self, feature: FeatureMap) -> None:
        for name in ("h_kernel_size", "v_kernel_size"):
            require_odd(self, name, self.integer(name), ": an even one would change the size")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, shapes = feature.channels, dict[str, tuple[int, ...]]()
        for layer in ("conv1", "conv2"):
            shapes |= layer_shapes({f"{layer}.conv": (channels, channels, 1, 1)}, bias=not self._norm)
            shapes |= bn_shapes(f"{layer}.bn", channels) if self._norm else {}
        strips = {f"{layer}.conv": (channels, 1, *kernel) for layer, kernel in self._kernels.items()}
        return shapes | layer_shapes(strips)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {"conv2.bn" if self._norm else "conv2.conv": SATURATED})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for layer, name in (("h_conv", "h_kernel_size"), ("v_conv", "v_kernel_size")):
            if len(shape := shapes.get(f"{layer}.conv.weight", ())) == 4:
                found[name] = max(shape[2:])
        return found

    def emit(self, t: Template, lowering: str) -> Variable:
        # as torch, the mean counts the padding
        y = t.op("AveragePool", t.x, kernel_shape=[7, 7], strides=[1, 1], pads=[3] * 4, count_include_pad=1)
        y = self._pointwise(t, y, "conv1")
        for layer in self._kernels:
            y = depthwise(t, y, f"{layer}.conv")
        return t.mul(t.x, t.sigmoid(self._pointwise(t, y, "conv2")))

    def _pointwise(self, t: Template, x: Variable, layer: str) -> Variable:
        if not self._norm:
            return linear(t, x, f"{layer}.conv")
        return silu(t, conv_bn(t, x, f"{layer}.conv", f"{layer}.bn", self.number("bn_eps")))
