"""MSCA, multi-scale convolutional attention of SegNeXt: strip convolutions of three sizes make the gate, unbounded.

Guo et al., "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation", NeurIPS 2022,
arXiv:2209.08575.
"""

from __future__ import annotations

from typing import ClassVar

from graphsurgery.blocks import Array, FeatureMap, Template, Variable

from .catalogue import CatalogueBlock
from .layers import branched, depthwise, linear, projected

_KERNELS: dict[str, tuple[int, int]] = {
    "conv0": (5, 5),
    "conv0_1": (1, 7),
    "conv0_2": (7, 1),
    "conv1_1": (1, 11),
    "conv1_2": (11, 1),
    "conv2_1": (1, 21),
    "conv2_2": (21, 1),
}


class MultiScaleConvolutionalAttention(CatalogueBlock):
    """The strip convolutions have biases and pad with zeros, so that none can be joined with the one after it."""

    name = "msca"
    title = "Multi-scale Convolutional Attention (SegNeXt)"
    demand = 24
    paper = (
        "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation, NeurIPS 2022, arXiv:2209.08575"
    )
    reference = "Visual-Attention-Network/SegNeXt, mmseg/models/backbones/mscan.py"
    formula = (
        "y = x * conv3(a + sum over k in 7, 11, 21 of dw_kx1(dw_1xk(a))), a = dw_5x5(x), no sigmoid; "
        "wrapper: x + proj_2(unit(gelu(proj_1(x))))"
    )
    untrained = "the unit scales its input to about 0.3 with random signs; the wrapper adds to it"
    identity_learns = True
    variants: ClassVar[dict[str, str]] = {
        "unit": "AttentionModule, the gating unit: what most YOLO forks call MSCAAttention",
        "wrapper": "SpatialAttention: the unit between two 1x1 convolutions, plus x; its weights have proj_1",
    }
    module_classes: ClassVar[dict[str, str]] = {"unit": "AttentionModule", "wrapper": "SpatialAttention"}

    @property
    def _prefix(self) -> str:
        return "spatial_gating_unit." if self.variant == "wrapper" else ""

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, shapes = feature.channels, dict[str, tuple[int, ...]]()
        for layer, kernel in _KERNELS.items():
            shapes[f"{self._prefix}{layer}.weight"] = (channels, 1, *kernel)
        layers = ["conv3", *(["proj_1", "proj_2"] if self.variant == "wrapper" else [])]
        for layer in layers:
            shapes[f"{self._prefix if layer == 'conv3' else ''}{layer}.weight"] = (channels, channels, 1, 1)
        return shapes | {f"{key.removesuffix('weight')}bias": (channels,) for key in shapes}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        # the wrapper's unit passes on what it gets, so that proj_2 has something to learn from
        wrapper = {"proj_2": 0.0} if self.variant == "wrapper" else {}
        return self.with_biases(feature, {f"{self._prefix}conv3": 1.0, **wrapper})

    def emit(self, t: Template, lowering: str) -> Variable:
        if self.variant == "unit":
            return self._unit(t, t.x)
        return projected(t, lambda x: self._unit(t, x))

    def _unit(self, t: Template, x: Variable) -> Variable:
        branches = [(f"{self._prefix}conv{n}_1", f"{self._prefix}conv{n}_2") for n in range(3)]
        total = branched(t, depthwise(t, x, f"{self._prefix}conv0"), branches)
        return t.mul(x, linear(t, total, f"{self._prefix}conv3"))
