"""SHSA: self-attention of one head on a part of the channels, alone and in SHViT's block.

Yun and Ro, "SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design", CVPR 2024, arXiv:2401.16456.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from .activations import silu
from .catalogue import CatalogueBlock, bn_eps
from .layers import conv_bn_rows, conv_then_bn
from .norms import whole_norm
from .transformer import attend, concat, cut, in_heads, like_map

_PUBLISHED = 4.67  # channels over those of the attention
_GN_EPS = 1e-5


class SHSA(CatalogueBlock):
    """q, k and v come out of three convolutions, with the scale of the logits in q's weights."""

    name = "shsa"
    title = "Single-Head Self-Attention (SHViT)"
    demand = 12
    quadratic = True
    paper = "SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design, CVPR 2024, arXiv:2401.16456"
    reference = "ysj9909/SHViT, model/shvit.py"
    formula = (
        "unit: y = BN(proj(relu([v softmax(q^T k / sqrt(d))^T, b]))), [q, k, v] = BN(qkv(GN(a))), [a, b] = x; "
        "block: x + BN(dw(x)), then + unit, then + BN(pw2(relu(BN(pw1))))"
    )
    untrained = "the block gives its input back, the unit 0: their last BatchNorms start with weight 0"
    identity_learns: ClassVar[tuple[str, ...]] = ("block",)
    variants: ClassVar[dict[str, str]] = {
        "block": "BasicBlock: a depthwise convolution, the attention and a feed-forward part, each with a shortcut",
        "unit": "SHSA alone, without a shortcut",
    }
    module_classes: ClassVar[dict[str, str]] = {"block": "SHSABlock"}
    settings = (
        Setting("pdim", int, None, "channels in the attention; C/4.67 in fours where not given", minimum=1),
        Setting("qk_dim", int, 16, "channels of a query", minimum=1),
        Setting(
            "hidden", int, None, "width of the feed-forward part; 2C where not given", minimum=1, variants=("block",)
        ),
        Setting(
            "activation",
            str,
            "relu",
            "relu in SHViT, silu in collections of YOLO and RT-DETR modules",
            choices=("relu", "silu"),
            later=True,
        ),
        bn_eps(),
    )

    aliases = ((r"(conv|mixer|ffn)\.fn\.(.*)", r"\1.m.\2"),)

    @property
    def _prefix(self) -> str:
        return "mixer.m." if self.variant == "block" else ""

    def _pdim(self, feature: FeatureMap) -> int:
        return self.integer("pdim") or max(4 * round(feature.channels / _PUBLISHED / 4), 1)

    def default_hidden(self, feature: FeatureMap) -> int:
        return 2 * feature.channels

    def check(self, feature: FeatureMap) -> None:
        if self._pdim(feature) >= feature.channels:
            raise BlockError(
                f"{feature.label} has {feature.channels} channels; shsa needs more than the {self._pdim(feature)} "
                "that take part in the attention"
            )

    def _layers(self, feature: FeatureMap) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Prefix of a convolution -> (that of its BatchNorm, shape of its weight)."""
        channels, part, unit = feature.channels, self._pdim(feature), self._prefix
        shapes = {
            f"{unit}qkv": (2 * self.integer("qk_dim") + part, part, 1, 1),
            f"{unit}proj.1": (channels, channels, 1, 1),
        }
        if self.variant == "block":
            hidden = self.hidden(feature)
            shapes = {"conv.m": (channels, 1, 3, 3), **shapes}
            shapes |= {"ffn.m.pw1": (hidden, channels, 1, 1), "ffn.m.pw2": (channels, hidden, 1, 1)}
        return {f"{layer}.c": (f"{layer}.bn", shape) for layer, shape in shapes.items()}

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        shapes = layer_shapes({f"{self._prefix}pre_norm": (self._pdim(feature),)})
        for conv, (bn, shape) in self._layers(feature).items():
            shapes |= layer_shapes({conv: shape}, bias=False) | bn_shapes(bn, shape[0])
        return shapes

    def _ends(self) -> dict[str, float]:
        """The scales that start at 0."""
        parts = ("conv.m", "mixer.m.proj.1", "ffn.m.pw2") if self.variant == "block" else ("proj.1",)
        return {f"{part}.bn.weight": 0.0 for part in parts}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        values = super().initial(feature, rng)
        return values | {key: np.full_like(values[key], number) for key, number in self._ends().items()}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if self.variant == "unit":
            raise self.no_identity("has no shortcut and cannot leave its input as it is")
        return self.with_constants(feature, self._ends())

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        if f"{self._prefix}qkv.c.weight" in shapes:
            rows, part = shapes[f"{self._prefix}qkv.c.weight"][:2]
            found = {"pdim": part, "qk_dim": (rows - part) // 2}
        return found | ({"hidden": shapes["ffn.m.pw1.c.weight"][0]} if "ffn.m.pw1.c.weight" in shapes else {})

    def emit(self, t: Template, lowering: str) -> Variable:
        if self.variant == "unit":
            return self._attended(t, t.x)
        x = t.add(t.x, self._conv(t, t.x, "conv.m", pads=[1] * 4, group=t.feature.channels))
        x = t.add(x, self._attended(t, x))
        return t.add(x, self._conv(t, self._activated(t, self._conv(t, x, "ffn.m.pw1")), "ffn.m.pw2"))

    def _activated(self, t: Template, x: Variable) -> Variable:
        return t.relu(x) if self.text("activation") == "relu" else silu(t, x)

    def _conv(self, t: Template, x: Variable, layer: str, **attributes: Any) -> Variable:
        return conv_then_bn(t, x, f"{layer}.c", f"{layer}.bn", self.number("bn_eps"), **attributes)

    def _attended(self, t: Template, x: Variable) -> Variable:
        part, width, layer = self._pdim(t.feature), self.integer("qk_dim"), f"{self._prefix}qkv"
        normal = whole_norm(t, cut(t, x, 1, 0, part), f"{self._prefix}pre_norm", _GN_EPS)
        starts = {"q": (0, width), "k": (width, 2 * width), "v": (2 * width, 2 * width + part)}
        heads = []
        for name, (start, stop) in starts.items():
            factor = width**-0.5 if name == "q" else 1.0
            rows = range(start, stop)
            y = conv_bn_rows(t, normal, f"{layer}.c", f"{layer}.bn", self.number("bn_eps"), rows, factor=factor)
            heads.append(in_heads(t, y, 1, stop - start))
        attended = like_map(t, attend(t, *heads), part)
        rest = cut(t, x, 1, part, t.feature.channels)
        return self._conv(t, self._activated(t, concat(t, [attended, rest], 1)), f"{self._prefix}proj.1")

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"pdim": self._pdim(feature)}
