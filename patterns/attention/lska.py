"""LSKA: a large kernel taken apart into four depthwise strips, then a 1x1 convolution, as a gate without sigmoid.

Lau et al., "Large Separable Kernel Attention", arXiv:2309.01439.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks.block import Array, Block, Setting
from graphsurgery.blocks.initial_weights import layer_values
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template.template import Template

from .parts import depthwise

if TYPE_CHECKING:
    import torch

KERNELS = {7: (3, 3, 2), 11: (3, 5, 2), 23: (5, 7, 3), 35: (5, 11, 3), 41: (5, 13, 3), 53: (5, 17, 3)}
"""k_size -> (kernel of conv0h and conv0v, kernel of conv_spatial_h and conv_spatial_v, dilation of these)"""


class LSKA(Block):
    """The strips stay four convolutions: each has a bias, and the next one pads with 0, so two are not one k x k."""

    name = "lska"
    title = "Large Separable Kernel Attention"
    demand = 40
    paper = "Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN, arXiv:2309.01439"
    reference = "StevenLauHKHK/Large-Separable-Kernel-Attention, models/van.py"
    formula = "y = x * conv1(conv_spatial_v(conv_spatial_h(conv0v(conv0h(x)))))"
    untrained = "about a quarter of its input's norm, with random signs: the gate has no sigmoid"
    settings = (Setting("k_size", int, 7, "side of the kernel that is taken apart", choices=tuple(KERNELS)),)

    @property
    def _kernels(self) -> tuple[int, int, int]:
        return KERNELS[int(self.values["k_size"] or 0)]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, (near, far, _) = feature.channels, self._kernels
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, kernel in (("conv0", near), ("conv_spatial_", far)):
            shapes |= {f"{layer}h.weight": (channels, 1, 1, kernel), f"{layer}h.bias": (channels,)}
            shapes |= {f"{layer}v.weight": (channels, 1, kernel, 1), f"{layer}v.bias": (channels,)}
        return shapes | {"conv1.weight": (channels, channels, 1, 1), "conv1.bias": (channels,)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return layer_values(rng, self.parameters(feature))

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        values = self.initial(feature, np.random.default_rng(0))
        values["conv1.weight"] = np.zeros_like(values["conv1.weight"])
        values["conv1.bias"] = np.ones_like(values["conv1.bias"])
        return values

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found = tuple(shapes.get(key, (0,))[-1] for key in ("conv0h.weight", "conv_spatial_h.weight"))
        return next(({"k_size": size} for size, kernels in KERNELS.items() if kernels[:2] == found), {})

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        x: gs.Variable = t.x
        dilation = self._kernels[2]
        for layer, step in (("conv0h", 1), ("conv0v", 1), ("conv_spatial_h", dilation), ("conv_spatial_v", dilation)):
            x = depthwise(t, x, layer, step)
        return t.mul(t.x, t.conv(x, t.weight("conv1.weight"), t.weight("conv1.bias")))

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.lska import LSKA as Module

        return Module(feature.channels, k_size=int(self.values["k_size"] or 0))
