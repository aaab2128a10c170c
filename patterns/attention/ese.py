"""eSE: squeeze (global mean), one full layer, hard sigmoid, scale.

Lee and Park, "CenterMask: Real-Time Anchor-Free Instance Segmentation", CVPR 2020, arXiv:1911.06667.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphsurgery.blocks import Array, FeatureMap, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from .activations import clip
from .catalogue import CatalogueBlock

_OPEN = 6.0  # the hard sigmoid is 1 from 3 on


class EffectiveSqueezeExcite(CatalogueBlock):
    """relu6(z + 3) / 6 = clip(z / 6 + 1/2, 0, 1), and the layer takes the sixth and the half: a Conv and a Clip."""

    name = "ese"
    title = "Effective Squeeze-and-Excitation"
    demand = 35
    paper = "CenterMask: Real-Time Anchor-Free Instance Segmentation, CVPR 2020, arXiv:1911.06667"
    reference = "youngwanLEE/CenterMask, eSEModule of VoVNet; timm, layers/squeeze_excite.py"
    formula = "y = x * relu6(fc(mean over H, W of x) + 3) / 6"
    untrained = "halves its input"
    aliases = ((r"(?:conv|fc1)\.(weight|bias)", r"fc.\1"),)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return layer_shapes({"fc": (feature.channels, feature.channels, 1, 1)})

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {"fc": _OPEN})

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return ("convolution", "gemm")  # as for se: onnxruntime reorders no map for a matrix product

    def emit(self, t: Template, lowering: str) -> Variable:
        channels, gemm = t.feature.channels, lowering == "gemm"
        squeezed = t.reduce("ReduceMean", t.x, (2, 3), keepdims=0 if gemm else 1)
        weight = t.weight("fc.weight", (channels, channels) if gemm else None, factor=1 / 6)
        bias = t.constant(t.values("fc.bias") / 6 + 0.5, "fc.bias")
        gate = t.op("Gemm", squeezed, weight, bias, transB=1) if gemm else t.conv(squeezed, weight, bias)
        gate = clip(t, gate, 0.0, 1.0)
        return t.mul(t.x, t.op("Reshape", gate, t.integers([0, channels, 1, 1], "shape")) if gemm else gate)
