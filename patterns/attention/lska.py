"""LSKA: a large kernel taken apart into four depthwise strips, then a 1x1 convolution, as a gate without sigmoid.

Lau et al., "Large Separable Kernel Attention", arXiv:2309.01439.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsurgery.blocks import Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from ..forms import LSKA_KERNELS
from .catalogue import CatalogueBlock
from .layers import depthwise


class LSKA(CatalogueBlock):
    """The strips stay four convolutions: each has a bias, and the next one pads with 0, so two are not one k x k."""

    name = "lska"
    title = "Large Separable Kernel Attention"
    demand = 40
    paper = "Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN, arXiv:2309.01439"
    reference = "StevenLauHKHK/Large-Separable-Kernel-Attention, models/van.py"
    formula = "y = x * conv1(conv_spatial_v(conv_spatial_h(conv0v(conv0h(x)))))"
    untrained = "about a quarter of its input's norm, with random signs: the gate has no sigmoid"
    identity_learns = True
    settings = (Setting("k_size", int, 7, "side of the kernel that is taken apart", choices=tuple(LSKA_KERNELS)),)

    @property
    def _kernels(self) -> tuple[int, int, int]:
        return LSKA_KERNELS[self.integer("k_size")]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, (near, far, _) = feature.channels, self._kernels
        layers: dict[str, tuple[int, ...]] = {}
        for layer, kernel in (("conv0", near), ("conv_spatial_", far)):
            layers |= {f"{layer}h": (channels, 1, 1, kernel), f"{layer}v": (channels, 1, kernel, 1)}
        return layer_shapes(layers | {"conv1": (channels, channels, 1, 1)})

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {"conv1": 1.0})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found = tuple(shapes.get(key, (0,))[-1] for key in ("conv0h.weight", "conv_spatial_h.weight"))
        return next(({"k_size": size} for size, kernels in LSKA_KERNELS.items() if kernels[:2] == found), {})

    def emit(self, t: Template, lowering: str) -> Variable:
        x: Variable = t.x
        dilation = self._kernels[2]
        for layer, step in (("conv0h", 1), ("conv0v", 1), ("conv_spatial_h", dilation), ("conv_spatial_v", dilation)):
            x = depthwise(t, x, layer, step)
        return t.mul(t.x, t.conv(x, t.weight("conv1.weight"), t.weight("conv1.bias")))
