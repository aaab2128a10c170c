"""LKA: a large kernel taken apart into two depthwise convolutions and a 1x1 convolution, as a gate without sigmoid.

Guo et al., "Visual Attention Network", Computational Visual Media 2023, arXiv:2202.09741; with deformable convolutions:
Azad et al., "Beyond Self-Attention: Deformable Large Kernel Attention for Medical Image Segmentation", WACV 2024,
arXiv:2309.00121.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from graphsurgery.blocks import Array, FeatureMap, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from . import deformable as deforming
from .activations import gelu
from .catalogue import CatalogueBlock
from .layers import depthwise, linear
from .widths import require_static

_UNIT = "spatial_gating_unit."
_FAR = 3
"""dilation of the second convolution"""


class LKA(CatalogueBlock):
    """The two depthwise convolutions stay two: the second pads with 0 and not with the bias of the first."""

    name = "lka"
    title = "Large Kernel Attention (VAN)"
    demand = 40
    paper = (
        "Visual Attention Network, Computational Visual Media 2023, arXiv:2202.09741; deformable: Beyond "
        "Self-Attention: Deformable Large Kernel Attention, WACV 2024, arXiv:2309.00121"
    )
    reference = (
        "Visual-Attention-Network/VAN-Classification, models/van.py; "
        "xmindflow/deformableLKA, 2D/deformable_LKA/deformable_LKA.py"
    )
    formula = (
        "y = x * conv1(conv_spatial(conv0(x))); wrapper: x + proj_2(unit(gelu(proj_1(x)))); deformable: the taps of "
        "both lie where a convolution of the same kernel moves them, bilinear, 0 outside of the map"
    )
    untrained = "the unit gives about a quarter of its input's norm, with random signs; the wrapper adds to it"
    identity_learns = True
    variants: ClassVar[dict[str, str]] = {
        "unit": "LKA alone, the gating unit",
        "wrapper": "VAN's Attention: the unit between two 1x1 convolutions, plus x; its weights have proj_1",
        "deformable": "the unit with deformable convolutions; opset 16, or 19 for onnxruntime 1.25's DeformConv",
        "deformable-wrapper": "deformable_LKA_Attention: the same between two 1x1 convolutions, plus x",
    }
    module_classes: ClassVar[dict[str, str]] = {
        "wrapper": "Attention",
        "deformable": "DeformableLKA",
        "deformable-wrapper": "DeformableAttention",
    }

    @property
    def _wrapped(self) -> bool:
        return str(self.variant).endswith("wrapper")

    @property
    def _deformable(self) -> bool:
        return str(self.variant).startswith("deformable")

    @property
    def _prefix(self) -> str:
        return _UNIT if self._wrapped else ""

    def check(self, feature: FeatureMap) -> None:
        if self._deformable:
            require_static(feature, f"{self.spelled} reads the map between its positions")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, unit = feature.channels, self._prefix
        dense = (channels, channels, 1, 1)
        shapes: dict[str, tuple[int, ...]] = {}
        for name, side in (("conv0", 5), ("conv_spatial", 7)):
            if self._deformable:
                shapes |= layer_shapes({f"{unit}{name}.offset_net": (2 * side * side, channels, side, side)})
                shapes |= layer_shapes({f"{unit}{name}.deform_conv": (channels, 1, side, side)}, bias=False)
            else:
                shapes |= layer_shapes({f"{unit}{name}": (channels, 1, side, side)})
        shapes |= layer_shapes({f"{unit}conv1": dense})
        return layer_shapes({"proj_1": dense}) | shapes | layer_shapes({"proj_2": dense}) if self._wrapped else shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        # the wrapper's unit passes on what it gets, so that proj_2 has something to learn from
        wrapper = {"proj_2": 0.0} if self._wrapped else {}
        return self.with_biases(feature, {f"{self._prefix}conv1": 1.0, **wrapper})

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return deforming.lowerings(opset) if self._deformable else super().lowerings(feature, opset)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        """DeformConv for onnxruntime; what TensorRT has as a layer of its own, in all its versions, for all others."""
        return lowerings[0] if t.target == "onnxruntime" else lowerings[-1]

    def emit(self, t: Template, lowering: str) -> Variable:
        if not self._wrapped:
            return self._unit(t, t.x, lowering)
        return t.add(t.x, linear(t, self._unit(t, gelu(t, linear(t, t.x, "proj_1")), lowering), "proj_2"))

    def _unit(self, t: Template, x: Variable, lowering: str) -> Variable:
        near, far = f"{self._prefix}conv0", f"{self._prefix}conv_spatial"
        if self._deformable:
            seen = deforming.deformable(t, x, near, 1, lowering)
            seen = deforming.deformable(t, seen, far, _FAR, lowering)
        else:
            seen = depthwise(t, depthwise(t, x, near), far, dilation=_FAR)
        return t.mul(x, linear(t, seen, f"{self._prefix}conv1"))
