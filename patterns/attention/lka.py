"""LKA: a large kernel taken apart into two depthwise convolutions and a 1x1 convolution, as a gate without sigmoid.

Guo et al., "Visual Attention Network", Computational Visual Media 2023, arXiv:2202.09741.
"""

from __future__ import annotations

from typing import ClassVar

from graphsurgery.blocks import Array, FeatureMap, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from .activations import gelu
from .catalogue import CatalogueBlock
from .layers import depthwise, linear

_UNIT = "spatial_gating_unit."


class LKA(CatalogueBlock):
    """The two depthwise convolutions stay two: the second pads with 0 and not with the bias of the first."""

    name = "lka"
    title = "Large Kernel Attention (VAN)"
    demand = 40
    paper = "Visual Attention Network, Computational Visual Media 2023, arXiv:2202.09741"
    reference = "Visual-Attention-Network/VAN-Classification, models/van.py"
    formula = "y = x * conv1(conv_spatial(conv0(x))); wrapper: x + proj_2(unit(gelu(proj_1(x))))"
    untrained = "the unit gives about a quarter of its input's norm, with random signs; the wrapper adds to it"
    identity_learns = True
    variants: ClassVar[dict[str, str]] = {
        "unit": "LKA alone, the gating unit",
        "wrapper": "VAN's Attention: the unit between two 1x1 convolutions, plus x; its weights have proj_1",
    }
    module_classes: ClassVar[dict[str, str]] = {"wrapper": "Attention"}

    @property
    def _prefix(self) -> str:
        return _UNIT if self.variant == "wrapper" else ""

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, unit = feature.channels, self._prefix
        dense = (channels, channels, 1, 1)
        layers = {
            f"{unit}conv0": (channels, 1, 5, 5),
            f"{unit}conv_spatial": (channels, 1, 7, 7),
            f"{unit}conv1": dense,
        }
        if self.variant == "wrapper":
            layers = {"proj_1": dense, **layers, "proj_2": dense}
        return layer_shapes(layers)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        # the wrapper's unit passes on what it gets, so that proj_2 has something to learn from
        wrapper = {"proj_2": 0.0} if self.variant == "wrapper" else {}
        return self.with_biases(feature, {f"{self._prefix}conv1": 1.0, **wrapper})

    def emit(self, t: Template, lowering: str) -> Variable:
        if self.variant == "unit":
            return self._unit(t, t.x)
        return t.add(t.x, linear(t, self._unit(t, gelu(t, linear(t, t.x, "proj_1"))), "proj_2"))

    def _unit(self, t: Template, x: Variable) -> Variable:
        near = depthwise(t, x, f"{self._prefix}conv0")
        far = depthwise(t, near, f"{self._prefix}conv_spatial", dilation=3)
        return t.mul(x, linear(t, far, f"{self._prefix}conv1"))
