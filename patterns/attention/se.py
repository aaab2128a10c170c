"""SE: squeeze (global mean), excite (two 1x1 convolutions), scale.

Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable

from .activations import clip, silu
from .catalogue import CatalogueBlock
from .layers import linear, multiplied

_ACTIVATIONS = {"relu": Template.relu, "silu": silu}
_GATES = ("sigmoid", "hard-sigmoid")


class SqueezeExcite(CatalogueBlock):
    """The linear layers are 1x1 convolutions on [N, C, 1, 1]: no Flatten, Gemm or Reshape, and any batch size."""

    name = "se"
    title = "Squeeze-and-Excitation"
    demand = 2
    paper = "Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507"
    reference = "hujie-frank/SENet, models/SE-ResNet-50.prototxt (hidden width C/16, biases)"
    formula = "y = x * sigmoid(fc2(relu(fc1(mean over H, W of x)))); EfficientNet: SiLU, MobileNetV3: a hard sigmoid"
    untrained = "halves its input"
    settings = (
        Setting("reduction", int, 16, "channels over hidden channels", minimum=1),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1),
        Setting("bias", bool, True, "whether the two layers have biases; the common PyTorch ports have none"),
        Setting(
            "activation",
            str,
            "relu",
            "between the two layers; EfficientNet's is silu",
            choices=tuple(_ACTIVATIONS),
            later=True,
        ),
        Setting(
            "gate",
            str,
            "sigmoid",
            "on the logits; hard-sigmoid, relu6(z + 3) / 6, is that of MobileNetV3 and PP-LCNet",
            choices=_GATES,
            later=True,
        ),
    )
    aliases = (
        (r"(?:(?:fc|se|excitation)\.0|(?:fc|se)\.1|l1|linear1|conv1(?:\.conv)?)\.(weight|bias)", r"fc1.\1"),
        (r"(?:(?:fc|se|excitation)\.2|(?:fc|se)\.3|l2|linear2|conv2(?:\.conv)?)\.(weight|bias)", r"fc2.\1"),
        (r"(?:conv_reduce|_se_reduce|down|.*_1x1_down)\.(weight|bias)", r"fc1.\1"),
        (r"(?:conv_expand|_se_expand|up|.*_1x1_up)\.(weight|bias)", r"fc2.\1"),
    )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self.hidden(feature)
        shapes: dict[str, tuple[int, ...]] = {
            "fc1.weight": (hidden, channels, 1, 1),
            "fc2.weight": (channels, hidden, 1, 1),
        }
        if self.values["bias"]:
            shapes |= {"fc1.bias": (hidden,), "fc2.bias": (channels,)}
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if not self.flag("bias"):
            raise self.no_identity("has no biases and cannot leave its input as it is (it can only halve it)")
        return self.with_biases(feature, {"fc2": SATURATED})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if "fc1.weight" not in shapes:
            return {}
        return {"hidden": shapes["fc1.weight"][0], "bias": "fc1.bias" in shapes}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        # onnxruntime takes the activations into its matrix products, and reorders no map for them;
        # before opset 11 a Gemm has to have something to add
        return ("convolution", "gemm") if self.values["bias"] or opset >= 11 else ("convolution",)

    def emit(self, t: Template, lowering: str) -> Variable:
        gemm = lowering == "gemm"
        squeezed = t.reduce("ReduceMean", t.x, (2, 3), keepdims=0 if gemm else 1)
        bias, act = self.flag("bias"), _ACTIVATIONS[self.text("activation")]
        if self.text("gate") == "sigmoid":
            gate = t.sigmoid(excite(t, squeezed, "", bias=bias, gemm=gemm, act=act))
        else:
            gate = self._hard_gate(t, act(t, linear(t, squeezed, "fc1", bias=bias, gemm=gemm)), gemm=gemm)
        return t.mul(t.x, t.op("Reshape", gate, t.integers([0, t.feature.channels, 1, 1], "shape")) if gemm else gate)

    def _hard_gate(self, t: Template, hidden: Variable, *, gemm: bool) -> Variable:
        """relu6(z + 3) / 6 of the last layer's z: the sixth and the half are in its weights."""
        weight = t.weight("fc2.weight", (t.feature.channels, self.hidden(t.feature)) if gemm else None, factor=1 / 6)
        bias = t.values("fc2.bias") / 6 if self.flag("bias") else np.zeros(t.feature.channels)
        weights = [weight, t.constant(bias + 0.5, "fc2.bias")]
        return clip(t, multiplied(t, hidden, weights, gemm=gemm), 0.0, 1.0)


def excite(
    t: Template,
    squeezed: Variable,
    prefix: str,
    *,
    bias: bool = True,
    gemm: bool = False,
    act: Callable[[Template, Variable], Variable] = Template.relu,
) -> Variable:
    """fc2(act(fc1(squeezed))) with the parameters ``prefix + fc1.weight`` and so on."""
    hidden = act(t, linear(t, squeezed, f"{prefix}fc1", bias=bias, gemm=gemm))
    return linear(t, hidden, f"{prefix}fc2", bias=bias, gemm=gemm)
