"""LSKA: a large kernel taken apart into four depthwise strips, then a 1x1 convolution, as a gate without sigmoid.

Lau et al., "Large Separable Kernel Attention", arXiv:2309.01439.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from graphsurgery.blocks import Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from ..forms import LSKA_KERNELS
from .catalogue import CatalogueBlock
from .layers import depthwise, linear, projected

_UNIT = "spatial_gating_unit."


class LSKA(CatalogueBlock):
    """The strips stay four convolutions: each has a bias, and the next one pads with 0, so two are not one k x k."""

    name = "lska"
    title = "Large Separable Kernel Attention"
    demand = 40
    paper = "Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN, arXiv:2309.01439"
    reference = "StevenLauHKHK/Large-Separable-Kernel-Attention, models/van.py"
    formula = (
        "y = x * conv1(conv_spatial_v(conv_spatial_h(conv0v(conv0h(x))))); wrapper: x + proj_2(unit(gelu(proj_1(x))))"
    )
    untrained = "the unit gives about a quarter of its input's norm, with random signs; the wrapper adds to it"
    identity_learns = True
    variants: ClassVar[dict[str, str]] = {
        "unit": "LSKA alone, the gating unit",
        "wrapper": "the code's Attention: the unit between two 1x1 convolutions, plus x; its weights have proj_1",
    }
    module_classes: ClassVar[dict[str, str]] = {"wrapper": "Attention"}
    settings = (Setting("k_size", int, 7, "side of the kernel that is taken apart", choices=tuple(LSKA_KERNELS)),)

    @property
    def _prefix(self) -> str:
        return _UNIT if self.variant == "wrapper" else ""

    @property
    def _kernels(self) -> tuple[int, int, int]:
        return LSKA_KERNELS[self.integer("k_size")]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, (near, far, _) = feature.channels, self._kernels
        dense, unit = (channels, channels, 1, 1), self._prefix
        layers: dict[str, tuple[int, ...]] = {"proj_1": dense} if self.variant == "wrapper" else {}
        for layer, kernel in ((f"{unit}conv0", near), (f"{unit}conv_spatial_", far)):
            layers |= {f"{layer}h": (channels, 1, 1, kernel), f"{layer}v": (channels, 1, kernel, 1)}
        layers[f"{unit}conv1"] = dense
        return layer_shapes(layers | ({"proj_2": dense} if self.variant == "wrapper" else {}))

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        # the wrapper's unit passes on what it gets, so that proj_2 has something to learn from
        wrapper = {"proj_2": 0.0} if self.variant == "wrapper" else {}
        return self.with_biases(feature, {f"{self._prefix}conv1": 1.0, **wrapper})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        keys = (f"{self._prefix}{layer}.weight" for layer in ("conv0h", "conv_spatial_h"))
        found = tuple(shapes.get(key, (0,))[-1] for key in keys)
        return next(({"k_size": size} for size, kernels in LSKA_KERNELS.items() if kernels[:2] == found), {})

    def emit(self, t: Template, lowering: str) -> Variable:
        return self._unit(t, t.x) if self.variant == "unit" else projected(t, lambda x: self._unit(t, x))

    def _unit(self, t: Template, x: Variable) -> Variable:
        y, dilation = x, self._kernels[2]
        for layer, step in (("conv0h", 1), ("conv0v", 1), ("conv_spatial_h", dilation), ("conv_spatial_v", dilation)):
            y = depthwise(t, y, f"{self._prefix}{layer}", step)
        return t.mul(x, linear(t, y, f"{self._prefix}conv1"))
