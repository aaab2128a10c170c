"""eSE: squeeze (global mean), one full layer, hard sigmoid or sigmoid, scale.

Lee and Park, "CenterMask: Real-Time Anchor-Free Instance Segmentation", CVPR 2020, arXiv:1911.06667.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from .activations import clip
from .catalogue import CatalogueBlock

_HARD = "hard-sigmoid"
_OPEN = {_HARD: 6.0, "sigmoid": SATURATED}
"""gate -> a logit with which it is 1; the hard sigmoid is from 3 on"""


class EffectiveSqueezeExcite(CatalogueBlock):
    """relu6(z + 3) / 6 = clip(z / 6 + 1/2, 0, 1), and the layer takes the sixth and the half: a Conv and a Clip."""

    name = "ese"
    title = "Effective Squeeze-and-Excitation"
    demand = 35
    paper = "CenterMask: Real-Time Anchor-Free Instance Segmentation, CVPR 2020, arXiv:1911.06667"
    reference = "youngwanLEE/CenterMask, eSEModule of VoVNet; timm, layers/squeeze_excite.py"
    formula = "y = x * relu6(fc(mean over H, W of x) + 3) / 6; gate=sigmoid: y = x * sigmoid(fc(...))"
    untrained = "halves its input"
    settings = (
        Setting(
            "gate",
            str,
            _HARD,
            "on the logits; sigmoid is that of HGNetV2's EseModule and of Ultralytics' ChannelAttention",
            choices=tuple(_OPEN),
            later=True,
        ),
    )
    aliases = ((r"(?:conv|fc1)\.(weight|bias)", r"fc.\1"),)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return layer_shapes({"fc": (feature.channels, feature.channels, 1, 1)})

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {"fc": _OPEN[self.text("gate")]})

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return ("convolution", "gemm")  # as for se: onnxruntime reorders no map for a matrix product

    def emit(self, t: Template, lowering: str) -> Variable:
        channels, gemm = t.feature.channels, lowering == "gemm"
        squeezed = t.reduce("ReduceMean", t.x, (2, 3), keepdims=0 if gemm else 1)
        hard = self.text("gate") == _HARD
        weight = t.weight("fc.weight", (channels, channels) if gemm else None, factor=1 / 6 if hard else 1.0)
        bias = t.constant(t.values("fc.bias") / 6 + 0.5, "fc.bias") if hard else t.weight("fc.bias")
        logits = t.op("Gemm", squeezed, weight, bias, transB=1) if gemm else t.conv(squeezed, weight, bias)
        gate = clip(t, logits, 0.0, 1.0) if hard else t.sigmoid(logits)
        return t.mul(t.x, t.op("Reshape", gate, t.integers([0, channels, 1, 1], "shape")) if gemm else gate)
