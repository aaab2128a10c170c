"""Coordinate Attention: one gate per row and one per column, both from the same narrow network.

Hou et al., "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv:2103.02907.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from . import onnxruntime_forms
from .activations import hard_swish, silu
from .catalogue import CatalogueBlock, bn_eps
from .layers import apart, biased, folded_conv, linear
from .transformer import reshape

_SIMPLE = "timm-simple"


class CoordinateAttention(CatalogueBlock):
    """The published code joins the means of rows and columns for one convolution and parts them again. That
    convolution, its BatchNorm and the activation work on each position alone: here they run on the two as they are.
    """

    name = "coordatt"
    title = "Coordinate Attention"
    demand = 7
    paper = "Coordinate Attention for Efficient Mobile Network Design, CVPR 2021, arXiv:2103.02907"
    reference = "houqb/CoordAttention, coordatt.py (hidden width max(8, C/32), biases)"
    formula = (
        "y = x * sigmoid(conv_h(t(mean over W))) * sigmoid(conv_w(t(mean over H))), t = h_swish(BN(conv1(.))); "
        "timm-simple: y = x * sigmoid(fc_h(t(mean over W)) + fc_w(t(mean over H))), t = silu(fc1(.))"
    )
    untrained = "scales its input to about a quarter (timm-simple: a half)"
    variants: ClassVar[dict[str, str]] = {
        "official": "the authors' code: biases, max(8, C/32) hidden channels",
        "timm": "timm's CoordAttn: no biases, C/24 hidden channels rounded to a multiple of 8",
        _SIMPLE: "timm's SimpleCoordAttn: no BatchNorm, one sigmoid of the sum, C/6 hidden channels rounded likewise",
    }
    settings = (
        Setting("reduction", int, 32, "channels over hidden channels, of which there are at least 8", 1, None, None,
                ("official",)),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1),
        bn_eps("BatchNorm", ("official", "timm")),
        Setting("bias", bool, True, "whether the layers have biases", variants=(_SIMPLE,)),
        Setting("skip", bool, False, "adds x to the result, timm's has_skip", variants=("timm", _SIMPLE)),
    )  # fmt: skip
    aliases = (
        (r"conv2\.(weight|bias)", r"conv_h.\1"),
        (r"conv3\.(weight|bias)", r"conv_w.\1"),
        (r"F_([hw])\.(weight|bias)", r"conv_\1.\2"),
        (r"bn\.(\w+)", r"bn1.\1"),
    )

    module_classes: ClassVar[dict[str, str]] = {_SIMPLE: "SimpleCoordinateAttention"}

    @property
    def _bias(self) -> bool:
        return self.variant == "official" or self.flag("bias")

    @property
    def _gates(self) -> tuple[str, str]:
        """Prefixes of the layers behind which the gates of rows and of columns are."""
        return ("fc_h", "fc_w") if self.variant == _SIMPLE else ("conv_h", "conv_w")

    def default_hidden(self, feature: FeatureMap) -> int:
        if self.variant == "official":
            return max(8, super().default_hidden(feature))
        return max(8, int(feature.channels / (6 if self.variant == _SIMPLE else 24) + 4) // 8 * 8)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self.hidden(feature)
        if self.variant == _SIMPLE:
            layers = {"fc1": (hidden, channels), "fc_h": (channels, hidden), "fc_w": (channels, hidden)}
            return layer_shapes(layers, bias=self._bias)
        shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (hidden, channels, 1, 1)}
        shapes |= bn_shapes("bn1", hidden)
        shapes |= {"conv_h.weight": (channels, hidden, 1, 1), "conv_w.weight": (channels, hidden, 1, 1)}
        if self._bias:
            shapes |= {"conv1.bias": (hidden,), "conv_h.bias": (channels,), "conv_w.bias": (channels,)}
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if not self._bias:
            raise self.no_identity("has no biases and cannot leave its input as it is")
        # a gate of 0 leaves what is added, and one of 1 what is multiplied
        gate = -SATURATED if self.flag("skip") else SATURATED
        return self.with_biases(feature, dict.fromkeys(self._gates, gate))

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if self.variant == _SIMPLE and "fc1.weight" in shapes:
            return {"hidden": shapes["fc1.weight"][0], "bias": "fc1.bias" in shapes}
        return {"hidden": shapes["conv1.weight"][0]} if "conv1.weight" in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """timm-simple: its layers as convolutions, or as products.

        onnxruntime adds what convolutions give in blocks of channels, and reorders the sum, which is a whole map.
        """
        return ("gates", "product") if self.variant == _SIMPLE else onnxruntime_forms.with_crossed(("gates",))

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        if self.variant == _SIMPLE:
            return super().choose(t, lowerings)
        return onnxruntime_forms.crossed_where_faster(t, lowerings[0])

    def emit(self, t: Template, lowering: str) -> Variable:
        y = self._simple(t, lowering) if self.variant == _SIMPLE else self._gated(t, lowering)
        return t.add(y, t.x) if self.flag("skip") else y

    def _simple(self, t: Template, lowering: str) -> Variable:
        product = lowering == "product"
        shared, logits = self._layer(t, "fc1", product=product), []
        for axis, gate in zip((3, 2), self._gates, strict=True):
            strip = onnxruntime_forms.strip_mean(t, axis)
            if product:
                strip = reshape(t, strip, (0, t.feature.channels, -1))
            found = self._layer(t, gate, product=product)(silu(t, shared(strip)))
            ends = (-1, 1) if axis == 3 else (1, -1)
            logits.append(reshape(t, found, (0, t.feature.channels, *ends)) if product else found)
        return t.mul(t.x, t.sigmoid(t.add(*logits)))

    def _layer(self, t: Template, prefix: str, *, product: bool) -> Callable[[Variable], Variable]:
        """A linear layer on strips: as a convolution, or as a product with [N, inputs, positions]."""
        outputs, inputs = t.values(f"{prefix}.weight").shape
        weight = t.weight(f"{prefix}.weight", (1, outputs, inputs) if product else (outputs, inputs, 1, 1))
        shape = (1, outputs, 1) if product else apart(t) if prefix in self._gates else None
        bias = t.weight(f"{prefix}.bias", shape) if self._bias else None

        def layer(x: Variable) -> Variable:
            if product:
                y = t.op("MatMul", weight, x)
                return y if bias is None else t.add(y, bias)
            return t.conv(x, weight) if bias is None else biased(t, x, weight, bias)

        return layer

    def _gated(self, t: Template, lowering: str) -> Variable:
        shared = folded_conv(t, "conv1", "bn1", self.number("bn_eps"))
        gates = []
        for axis, gate in zip((3, 2), self._gates, strict=True):
            hidden = hard_swish(t, t.conv(onnxruntime_forms.strip_mean(t, axis), *shared))
            gates.append(t.sigmoid(linear(t, hidden, gate, bias=self._bias)))
        return onnxruntime_forms.gated(t, t.x, gates[0], gates[1], lowering)

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"bias": self._bias}
