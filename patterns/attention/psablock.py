"""PSABlock of YOLO11: self-attention over all positions and a feed-forward part, with shortcuts.

The block inside C2PSA; its attention is that of YOLOv10 (arXiv:2405.14458), and there is no paper of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes
from graphsurgery.template import weight_folding

from .activations import silu
from .catalogue import CatalogueBlock
from .transformer import attend, in_heads, like_map
from .widths import require_divisor

_LAYERS = ("attn.qkv", "attn.proj", "attn.pe", "ffn.0", "ffn.1")


class PSABlock(CatalogueBlock):
    """q, k and v, which lie interleaved head by head in the weights, come out of three convolutions, each as a map.

    The scale of the logits is part of q's weights, and no map is sliced. BatchNorms are folded in.
    """

    name = "psablock"
    title = "PSABlock (YOLO11)"
    demand = 45
    quadratic = True
    paper = "none of its own; the attention is that of YOLOv10: Real-Time End-to-End Object Detection, arXiv:2405.14458"
    reference = "ultralytics/ultralytics, nn/modules/block.py, PSABlock"
    formula = (
        "z = x + proj(o + pe(v)), o = v softmax(q^T k / sqrt(d_k))^T for each head, [q, k, v] = qkv(x); "
        "y = z + ffn.1(silu(ffn.0(z))); every convolution with BatchNorm"
    )
    untrained = "its input plus two learned terms; about the scale of its input"
    identity_learns = True
    settings = (
        Setting("num_heads", int, None, "heads; C/64, at least 1, where not given, as C2PSA has them", minimum=1),
        Setting("attn_ratio", float, 0.5, "channels of a head's keys over those of its values", above=0),
        Setting("shortcut", bool, True, "whether the input of each part is added to its output"),
        Setting("bn_eps", float, 1e-3, "epsilon of the BatchNorms: 1e-3 in every model built by Ultralytics", above=0),
        Setting("fused", bool, False, "biases in place of the BatchNorms, as model.fuse() leaves them"),
    )

    def _heads(self, feature: FeatureMap) -> int:
        return int(self.values["num_heads"] or max(feature.channels // 64, 1))

    def _widths(self, feature: FeatureMap) -> tuple[int, int]:
        """Channels of a head's keys and of its values."""
        value = feature.channels // self._heads(feature)
        return int(value * self.number("attn_ratio")), value

    def check(self, feature: FeatureMap) -> None:
        heads = self._heads(feature)
        require_divisor(feature, heads, "heads")
        if self._widths(feature)[0] < 1:
            raise BlockError(
                f"{feature.label} has {feature.channels} channels; with {heads} heads and an attn_ratio of "
                f"{self.values['attn_ratio']} no channel is left for the keys"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels = feature.channels
        keys = 2 * self._widths(feature)[0] * self._heads(feature)
        weights = [(channels + keys, channels, 1, 1), (channels, channels, 1, 1), (channels, 1, 3, 3)]
        weights += [(2 * channels, channels, 1, 1), (channels, 2 * channels, 1, 1)]
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, shape in zip(_LAYERS, weights, strict=True):
            shapes |= layer_shapes({f"{layer}.conv": shape}, bias=self.flag("fused"))
            shapes |= {} if self.flag("fused") else bn_shapes(f"{layer}.bn", shape[0])
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if not self.flag("shortcut"):
            raise self.no_identity("without the shortcut cannot leave its input as it is")
        last = "conv" if self.flag("fused") else "bn"
        return self.with_biases(feature, {f"attn.proj.{last}": 0.0, f"ffn.1.{last}": 0.0})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        return {"fused": "attn.qkv.conv.bias" in shapes} if "attn.qkv.conv.weight" in shapes else {}

    def emit(self, t: Template, lowering: str) -> Variable:
        z = self._shortcut(t, t.x, self._attended(t))
        hidden = silu(t, self._conv(t, z, "ffn.0"))
        return self._shortcut(t, z, self._conv(t, hidden, "ffn.1"))

    def _shortcut(self, t: Template, x: Variable, y: Variable) -> Variable:
        return t.add(x, y) if self.values["shortcut"] else y

    def _attended(self, t: Template) -> Variable:
        heads, (key, value) = self._heads(t.feature), self._widths(t.feature)
        first = [head * (2 * key + value) for head in range(heads)]
        ranges = {"q": (0, key), "k": (key, 2 * key), "v": (2 * key, 2 * key + value)}
        parts: dict[str, Variable] = {}
        for name, (start, stop) in ranges.items():
            rows = [row for offset in first for row in range(offset + start, offset + stop)]
            parts[name] = self._conv(t, t.x, "attn.qkv", rows=rows, factor=key**-0.5 if name == "q" else 1.0)
        q, k, v = (in_heads(t, parts[name], heads, stop - start) for name, (start, stop) in ranges.items())
        o = like_map(t, attend(t, q, k, v), t.feature.channels)
        place = self._conv(t, parts["v"], "attn.pe", pads=[1] * 4, group=t.feature.channels)
        return self._conv(t, t.add(o, place), "attn.proj")

    def _conv(
        self,
        t: Template,
        x: Variable,
        layer: str,
        *,
        rows: Sequence[int] | None = None,
        factor: float = 1.0,
        **attributes: Any,
    ) -> Variable:
        """A convolution with its BatchNorm, or some of its output channels times a factor."""
        key, bn, eps = f"{layer}.conv.weight", f"{layer}.bn", self.number("bn_eps")
        bias = t.values(f"{layer}.conv.bias") if self.flag("fused") else weight_folding.affine(t.values, bn, eps)[1]
        if rows is not None:
            weight = t.rows(key, rows, factor=factor, bn="" if self.flag("fused") else bn, eps=eps)
            return t.conv(x, weight, t.constant(bias[list(rows)] * factor, f"{layer}.conv.bias"), **attributes)
        if self.flag("fused"):
            return t.conv(x, t.weight(key), t.weight(f"{layer}.conv.bias"), **attributes)
        return t.conv(x, t.folded(key, bn, eps)[0], t.constant(bias, f"{layer}.conv.bias"), **attributes)

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"heads": self._heads(feature)}
