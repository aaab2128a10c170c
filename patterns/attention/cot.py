"""CoT: convolved keys as static context, and what attention makes of them as dynamic context; two functions.

Li et al., "Contextual Transformer Networks for Visual Recognition", arXiv:2107.12292.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from . import norms
from .activations import silu
from .catalogue import CatalogueBlock, bn_eps
from .layers import batch_norm, conv_bn, linear
from .transformer import concat, cut, flat, like_map, reshape, softmax, unfolded
from .widths import require_odd

_GROUPS = 4
_SHARED = 8
_GN_EPS = 1e-5


class CoTAttention(CatalogueBlock):
    """Of external-attention's last convolution, the mean over the taps is taken of the weights; its bias is the same
    at every position, and the softmax does not see it.
    """

    name = "cot"
    title = "Contextual Transformer (CoT)"
    demand = 26
    paper = "Contextual Transformer Networks for Visual Recognition, arXiv:2107.12292"
    reference = (
        "xmu-xiaoma666/External-Attention-pytorch, model/attention/CoTAttention.py; JDAI-CV/CoTNet, models/cotnet.py"
    )
    formula = (
        "k = relu(BN(conv(x))), 4 groups; external-attention: y = k + softmax over positions of (mean over taps of "
        "f([k, x])) * BN(conv(x)); cotnet: "
        "y = a z + (1 - a) k, z = swish(BN(sum over taps of GN(f([x, k])) * BN(conv(x))))"
    )
    untrained = "a learned term in its place, of about half of its scale: there is no shortcut"
    variants: ClassVar[dict[str, str]] = {
        "external-attention": "CoTAttention as collections have it: a softmax over all positions of the map",
        "cotnet": "the authors' CotLayer: neighbours summed with weights out of the map, and a choice between both",
    }
    module_classes: ClassVar[dict[str, str]] = {"cotnet": "CotLayer"}
    settings = (Setting("kernel", int, 3, "side of the neighbourhood", minimum=1), bn_eps())

    def check(self, feature: FeatureMap) -> None:
        require_odd(self, "kernel", self.integer("kernel"))
        divisor = _SHARED if self.variant == "cotnet" else _GROUPS
        if feature.channels % divisor:
            raise BlockError(
                f"{feature.label} has {feature.channels} channels; {self.spelled} takes multiples of {divisor}"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, kernel = feature.channels, self.integer("kernel")
        half, key = channels // 2, (channels, channels // _GROUPS, kernel, kernel)
        shapes = layer_shapes({"key_embed.0": key}, bias=False) | bn_shapes("key_embed.1", channels)

        def pointwise(layer: str, inputs: int, outputs: int, *, bias: bool = False) -> dict[str, tuple[int, ...]]:
            found = layer_shapes({f"{layer}.0": (outputs, inputs, 1, 1)}, bias=bias)
            return found | bn_shapes(f"{layer}.1", outputs)

        if self.variant == "external-attention":
            shapes |= pointwise("value_embed", channels, channels)
            shapes |= pointwise("attention_embed", 2 * channels, half)
            return shapes | layer_shapes({"attention_embed.3": (kernel**2 * channels, half, 1, 1)})
        taps, inner = kernel**2 * channels // _SHARED, max(half, 32)
        shapes |= pointwise("embed", 2 * channels, half)
        shapes |= layer_shapes({"embed.3": (taps, half, 1, 1), "embed.4": (taps,)})
        shapes |= pointwise("conv1x1", channels, channels) | bn_shapes("bn", channels)
        shapes |= pointwise("se", channels, inner, bias=True)
        return shapes | layer_shapes({"se.3": (2 * channels, inner, 1, 1)})

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        raise self.no_identity("has no shortcut and cannot leave its input as it is")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        key = shapes.get("key_embed.0.weight", ())
        return {"kernel": key[3]} if len(key) == 4 else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return norms.of_maps(feature, opset) if self.variant == "cotnet" else ("default",)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return norms.choose(t, lowerings)

    def emit(self, t: Template, lowering: str) -> Variable:
        border = [self.integer("kernel") // 2] * 4
        k = t.relu(self._conv(t, t.x, "key_embed", pads=border, group=_GROUPS))
        if self.variant == "external-attention":
            return t.add(k, t.mul(self._positions(t, k), self._conv(t, t.x, "value_embed")))
        z = self._aggregated(t, k, lowering)
        hidden = t.relu(self._conv(t, t.mean_hw(t.add(z, k)), "se"))
        choice = softmax(t, reshape(t, linear(t, hidden, "se.3"), (0, t.feature.channels, 1, 2)), 4)
        return t.add(k, t.mul(t.cast(cut(t, choice, 3, 0, 1)), t.sub(z, k)))

    def _conv(self, t: Template, x: Variable, layer: str, **attributes: Any) -> Variable:
        return conv_bn(t, x, f"{layer}.0", f"{layer}.1", self.number("bn_eps"), **attributes)

    def _positions(self, t: Template, k: Variable) -> Variable:
        """The weights of external-attention, [N, C, H, W]."""
        channels = t.feature.channels
        hidden = t.relu(self._conv(t, concat(t, [k, t.x], 1), "attention_embed"))
        mean = t.kept("attention_embed.3.weight").reshape(channels, -1, channels // 2).mean(1)
        logits = t.conv(hidden, t.constant(mean[:, :, None, None], "attention_embed.3.weight"))
        return like_map(t, t.cast(softmax(t, flat(t, logits), 3)), channels)

    def _aggregated(self, t: Template, k: Variable, lowering: str) -> Variable:
        """z of cotnet, [N, C, H, W]."""
        channels, kernel = t.feature.channels, self.integer("kernel")
        shared, places = channels // _SHARED, t.feature.area if t.feature.static else -1
        hidden = t.relu(self._conv(t, concat(t, [t.x, k], 1), "embed"))
        weight, bias = (t.values(f"embed.4.{part}") for part in ("weight", "bias"))
        taps = norms.group_norm(t, linear(t, hidden, "embed.3"), shared, weight, bias, _GN_EPS, lowering, 2)
        taps = reshape(t, t.cast(taps), (0, 1, shared, kernel**2, places))
        near = unfolded(t, self._conv(t, t.x, "conv1x1"), channels, kernel, pads=kernel // 2)
        near = reshape(t, near, (0, _SHARED, shared, kernel**2, places))
        with t.statistics():
            total = t.plain_reduce("ReduceSum", t.mul(near, taps), (3,), keepdims=0)
        z = like_map(t, t.cast(total), channels)
        return silu(t, batch_norm(t, z, "bn", self.number("bn_eps")))
