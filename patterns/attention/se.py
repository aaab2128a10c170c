"""SE: squeeze (global mean), excite (two 1x1 convolutions), scale.

Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphsurgery.blocks import SATURATED, Array, Block, FeatureMap, Module, Setting, Template, Variable

from .widths import hidden_width, require_hidden


class SqueezeExcite(Block):
    """The linear layers are 1x1 convolutions on [N, C, 1, 1]: no Flatten, Gemm or Reshape, and any batch size."""

    name = "se"
    title = "Squeeze-and-Excitation"
    demand = 2
    paper = "Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507"
    reference = "hujie-frank/SENet, models/SE-ResNet-50.prototxt (hidden width C/16, biases)"
    formula = "y = x * sigmoid(fc2(relu(fc1(mean over H, W of x))))"
    untrained = "halves its input"
    settings = (
        Setting("reduction", int, 16, "channels over hidden channels", minimum=1),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1),
        Setting("bias", bool, True, "whether the two layers have biases; the common PyTorch ports have none"),
    )
    aliases = (
        (r"(?:fc\.0|l1|conv_reduce|down|.*_1x1_down)\.(weight|bias)", r"fc1.\1"),
        (r"(?:fc\.2|l2|conv_expand|up|.*_1x1_up)\.(weight|bias)", r"fc2.\1"),
    )

    def check(self, feature: FeatureMap) -> None:
        require_hidden(hidden_width(self, feature), self.values["reduction"], feature)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, hidden_width(self, feature)
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
        return self.with_constants(feature, {"fc2.weight": 0.0, "fc2.bias": SATURATED})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if "fc1.weight" not in shapes:
            return {}
        return {"hidden": shapes["fc1.weight"][0], "bias": "fc1.bias" in shapes}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        # before opset 11 a Gemm has to have something to add
        return ("convolution", "gemm") if self.values["bias"] or opset >= 11 else ("convolution",)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        # onnxruntime takes the activations into its matrix products, and reorders no map for them
        return "gemm" if t.target == "onnxruntime" and "gemm" in lowerings else "convolution"

    def emit(self, t: Template, lowering: str) -> Variable:
        bias = self.flag("bias")
        if lowering == "convolution":
            return t.mul(t.x, t.sigmoid(excite(t, t.mean_hw(t.x), "", bias=bias)))
        channels, hidden = t.feature.channels, hidden_width(self, t.feature)
        squeezed = t.reduce("ReduceMean", t.x, (2, 3), keepdims=0)
        for layer, shape in (("fc1", (hidden, channels)), ("fc2", (channels, hidden))):
            weights = [t.weight(f"{layer}.weight", shape), *([t.weight(f"{layer}.bias")] if bias else [])]
            squeezed = t.op("Gemm", squeezed, *weights, transB=1)
            squeezed = t.relu(squeezed) if layer == "fc1" else t.sigmoid(squeezed)
        return t.mul(t.x, t.op("Reshape", squeezed, t.integers([0, channels, 1, 1], "shape")))

    def module(self, feature: FeatureMap) -> Module:
        from graphsurgery.patterns.modules import se

        return se.SqueezeExcite(feature.channels, hidden_width(self, feature), bias=self.flag("bias"))


def excite(t: Template, squeezed: Variable, prefix: str, *, bias: bool = True) -> Variable:
    """fc2(relu(fc1(squeezed))) with the parameters ``prefix + fc1.weight`` and so on."""

    def layer(x: Variable, name: str) -> Variable:
        weight = t.weight(f"{prefix}{name}.weight")
        return t.conv(x, weight, t.weight(f"{prefix}{name}.bias") if bias else None)

    return layer(t.relu(layer(squeezed, "fc1")), "fc2")
