"""LSK: two depthwise neighbourhoods, of which every position selects, as a gate without sigmoid.

Li et al., "Large Selective Kernel Network for Remote Sensing Object Detection", ICCV 2023, arXiv:2303.09030.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import Array, BlockError, FeatureMap, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from . import onnxruntime_forms
from .activations import gelu
from .catalogue import CatalogueBlock
from .layers import depthwise, largest_plane_by_rows, linear, mean_plane_by_rows
from .transformer import concat, cut

_UNIT = "spatial_gating_unit."


class LSK(CatalogueBlock):
    """The maps a' and b' are never put side by side: mean and maximum over both come from those of each, the mean's
    half being part of the weights after it.
    """

    name = "lsk"
    title = "Large Selective Kernel"
    demand = 41
    paper = "Large Selective Kernel Network for Remote Sensing Object Detection, ICCV 2023, arXiv:2303.09030"
    reference = "zcablii/LSKNet, mmrotate/models/backbones/lsknet.py"
    formula = (
        "a = conv0(x), b = conv_spatial(a), a' = conv1(a), b' = conv2(b), s = sigmoid(conv_squeeze(mean and max over "
        "channels of a' and b')); unit: y = x * conv(a' s0 + b' s1); attention: y = x + proj_2(unit(gelu(proj_1(x))))"
    )
    untrained = "unit: about a seventh of its input's norm, with random signs; attention: its input and a little more"
    identity_learns = True
    variants: ClassVar[dict[str, str]] = {
        "unit": "the gating unit, LSKblock of the official code",
        "attention": "the unit between two 1x1 convolutions, with the shortcut: Attention of the official code",
    }
    module_classes: ClassVar[dict[str, str]] = {"attention": "LSKAttention"}

    @property
    def _prefix(self) -> str:
        return _UNIT if self.variant == "attention" else ""

    def check(self, feature: FeatureMap) -> None:
        if feature.channels % 2:
            raise BlockError(f"lsk halves the channels, and {feature.label} has {feature.channels}")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, half = feature.channels, feature.channels // 2
        weights: dict[str, tuple[int, ...]] = {
            "conv0": (channels, 1, 5, 5),
            "conv_spatial": (channels, 1, 7, 7),
            "conv1": (half, channels, 1, 1),
            "conv2": (half, channels, 1, 1),
            "conv_squeeze": (2, 2, 7, 7),
            "conv": (channels, half, 1, 1),
        }
        weights = {f"{self._prefix}{layer}": shape for layer, shape in weights.items()}
        if self.variant == "attention":
            square = (channels, channels, 1, 1)
            weights = {"proj_1": square, **weights, "proj_2": square}
        return layer_shapes(weights)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        layer, bias = ("proj_2", 0.0) if self.variant == "attention" else ("conv", 1.0)
        return self.with_biases(feature, {layer: bias})

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """In steps: for onnxruntime, at sites that onnxruntime_forms.gate_in_steps can be put on."""
        possible = feature.static and feature.dtype == "float32" and onnxruntime_forms.in_steps(feature.size)
        return ("planes", "steps") if possible else ("planes",)

    def emit(self, t: Template, lowering: str) -> Variable:
        if self.variant == "unit":
            return self._unit(t, t.x, lowering)
        # the unit's output grows with the square of x: float16 takes it smaller, and proj_2 larger
        factor = 2.0**-8 if t.feature.dtype == "float16" else 1.0
        inner = self._unit(t, gelu(t, linear(t, t.x, "proj_1")), lowering, factor)
        return t.add(t.x, t.conv(inner, t.weight("proj_2.weight", factor=1 / factor), t.weight("proj_2.bias")))

    def _unit(self, t: Template, x: Variable, lowering: str, factor: float = 1.0) -> Variable:
        """The gating unit, times a factor."""
        prefix, in_steps = self._prefix, lowering == "steps"
        near = depthwise(t, x, f"{prefix}conv0")
        far = depthwise(t, near, f"{prefix}conv_spatial", 3)
        near, far = linear(t, near, f"{prefix}conv1"), linear(t, far, f"{prefix}conv2")
        if in_steps:
            half = t.feature.channels // 2
            means = [mean_plane_by_rows(t, part, half) for part in (near, far)]
            largest = largest_plane_by_rows(t, (near, far), half)
        else:
            means = [t.reduce("ReduceMean", part, (1,)) for part in (near, far)]
            largest = t.op("Max", *(t.reduce("ReduceMax", part, (1,)) for part in (near, far)))
        pooled = concat(t, [*means, largest], 1)
        if in_steps or t.target == "dla" or not t.since(2):
            first, second = (self._selected(t, pooled, [row], in_steps=in_steps) for row in (0, 1))
        else:  # what OpenCV 5 multiplies must not be two convolutions of one and of many channels
            both = self._selected(t, pooled, [0, 1], in_steps=False)
            first, second = (cut(t, both, 1, row, row + 1) for row in (0, 1))
        mixed = t.add(t.mul(near, first), t.mul(far, second))
        weight = t.weight(f"{prefix}conv.weight", factor=factor)
        return t.mul(x, t.conv(mixed, weight, t.weight(f"{prefix}conv.bias", factor=factor)))

    def _selected(self, t: Template, pooled: Variable, rows: Sequence[int], *, in_steps: bool) -> Variable:
        """Some of the two selection maps, [N, len(rows), H, W]."""
        name = f"{self._prefix}conv_squeeze"
        weight = t.values(f"{name}.weight")[list(rows)]
        mean, largest = weight[:, :1] / 2, weight[:, 1:]
        kernel, bias = np.concatenate([mean, mean, largest], axis=1), t.values(f"{name}.bias")[list(rows)]
        if in_steps:
            return onnxruntime_forms.gate_in_steps(t, pooled, kernel, bias, name)
        weight, shift = t.constant(kernel, f"{name}.weight"), t.constant(bias, f"{name}.bias")
        return t.sigmoid(t.conv(pooled, weight, shift, pads=[3] * 4))
