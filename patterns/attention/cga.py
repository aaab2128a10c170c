"""CGA: attention within windows whose heads see what the head before them gave, alone and in EfficientViT's block.

Liu et al., "EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention", CVPR 2023,
arXiv:2305.07027.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from graphsurgery.blocks import Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes, torch_default

from .catalogue import CatalogueBlock, bn_eps
from .layers import conv_bn_rows, conv_then_bn
from .transformer import attend, concat, cut, into_windows, out_of_windows, pad_below, reshape
from .widths import require_divisor, require_odd, require_static

_BIASES = "attn.attention_biases"
_FOLLOWS = "attention_bias_idxs"
"""the end of the key of a buffer that follows from the window"""
_BLOCK = ("dw0", "ffn0", "dw1", "ffn1")


class CascadedGroupAttention(CatalogueBlock):
    """Windows become entries of the batch. The table of biases is one constant for each head."""

    name = "cga"
    title = "Cascaded Group Attention (EfficientViT)"
    demand = 22
    paper = (
        "EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention, CVPR 2023, arXiv:2305.07027"
    )
    reference = "microsoft/Cream, EfficientViT/classification/model/efficientvit.py"
    formula = (
        "unit: y = BN(proj(relu([y_0, y_1, ...]))), y_h = v softmax(BN(dw(q))^T k / sqrt(d) + bias)^T within windows, "
        "[q, k, v] = BN(qkv(x_h + y_{h-1})); block: + BN(dw), + FFN, + unit, + BN(dw), + FFN"
    )
    untrained = "the block gives its input back, the unit 0: their last BatchNorms start with weight 0"
    identity_learns: ClassVar[tuple[str, ...]] = ("block",)
    variants: ClassVar[dict[str, str]] = {
        "block": "EfficientViTBlock: the attention between convolutions and feed-forward parts, each with a shortcut",
        "unit": "LocalWindowAttention alone, without a shortcut",
    }
    module_classes: ClassVar[dict[str, str]] = {"block": "EfficientViTBlock", "unit": "LocalWindowAttention"}
    settings = (
        Setting("window", int, 7, "side of a window; a map that it does not divide is padded", minimum=1),
        Setting("heads", int, 4, "heads, each of an equal part of the channels", minimum=1),
        Setting("key_dim", int, 16, "channels of a query", minimum=1),
        Setting("kernel", int, 5, "side of the convolutions of q", minimum=1),
        Setting(
            "hidden", int, None, "width of the feed-forward parts; 2C where not given", minimum=1, variants=("block",)
        ),
        bn_eps(),
    )

    @property
    def _prefix(self) -> str:
        return "mixer.m." if self.variant == "block" else ""

    def _window(self, feature: FeatureMap) -> int:
        return min(self.integer("window"), *feature.size)

    def default_hidden(self, feature: FeatureMap) -> int:
        return 2 * feature.channels

    def check(self, feature: FeatureMap) -> None:
        require_static(feature, "cga cuts the map into windows")
        require_divisor(feature, self.integer("heads"), "heads")
        require_odd(self, "kernel", self.integer("kernel"))

    def _layers(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        """Prefix of a convolution with its BatchNorm -> shape of its weight."""
        channels, heads, width = feature.channels, self.integer("heads"), self.integer("key_dim")
        value, side, attention = channels // heads, self.integer("kernel"), f"{self._prefix}attn"
        layers: dict[str, tuple[int, ...]] = {}
        for head in range(heads):
            layers[f"{attention}.qkvs.{head}"] = (2 * width + value, value, 1, 1)
            layers[f"{attention}.dws.{head}"] = (width, 1, side, side)
        layers[f"{attention}.proj.1"] = (channels, channels, 1, 1)
        for part in _BLOCK if self.variant == "block" else ():
            if part.startswith("dw"):
                layers[f"{part}.m"] = (channels, 1, 3, 3)
            else:
                hidden = self.hidden(feature)
                layers |= {f"{part}.m.pw1": (hidden, channels, 1, 1), f"{part}.m.pw2": (channels, hidden, 1, 1)}
        return layers

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, shape in self._layers(feature).items():
            shapes |= layer_shapes({f"{layer}.c": shape}, bias=False) | bn_shapes(f"{layer}.bn", shape[0])
        return shapes | {f"{self._prefix}{_BIASES}": (self.integer("heads"), self._window(feature) ** 2)}

    def _ends(self) -> dict[str, float]:
        """The scales that start at 0."""
        parts = ["dw0.m", "ffn0.m.pw2", "dw1.m", "ffn1.m.pw2"] if self.variant == "block" else []
        return {f"{part}.bn.weight": 0.0 for part in [*parts, f"{self._prefix}attn.proj.1"]}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shapes = self.parameters(feature)
        biases = f"{self._prefix}{_BIASES}"
        values = torch_default({key: shape for key, shape in shapes.items() if key != biases}, rng)
        values |= {key: np.full_like(values[key], number) for key, number in self._ends().items()}
        return values | {biases: np.zeros(shapes[biases], np.float32)}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if self.variant == "unit":
            raise self.no_identity("has no shortcut and cannot leave its input as it is")
        return self.with_constants(feature, self._ends())

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return {key: values for key, values in arrays.items() if key.rpartition(".")[2] != _FOLLOWS}

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        attention, found = f"{self._prefix}attn", dict[str, object]()
        if len(shapes.get(f"{self._prefix}{_BIASES}", ())) == 2:
            found["heads"] = shapes[f"{self._prefix}{_BIASES}"][0]
        if len(shapes.get(f"{attention}.dws.0.c.weight", ())) == 4:
            found |= {"key_dim": shapes[f"{attention}.dws.0.c.weight"][0]}
            found |= {"kernel": shapes[f"{attention}.dws.0.c.weight"][3]}
        return found | ({"hidden": shapes["ffn0.m.pw1.c.weight"][0]} if "ffn0.m.pw1.c.weight" in shapes else {})

    def emit(self, t: Template, lowering: str) -> Variable:
        if self.variant == "unit":
            return self._attended(t, t.x)
        x = self._fed_forward(t, self._near(t, t.x, "dw0.m"), "ffn0.m")
        x = t.add(x, self._attended(t, x))
        return self._fed_forward(t, self._near(t, x, "dw1.m"), "ffn1.m")

    def _near(self, t: Template, x: Variable, layer: str) -> Variable:
        return t.add(x, self._conv(t, x, layer, pads=[1] * 4, group=t.feature.channels))

    def _fed_forward(self, t: Template, x: Variable, layer: str) -> Variable:
        return t.add(x, self._conv(t, t.relu(self._conv(t, x, f"{layer}.pw1")), f"{layer}.pw2"))

    def _conv(self, t: Template, x: Variable, layer: str, **attributes: Any) -> Variable:
        return conv_then_bn(t, x, f"{layer}.c", f"{layer}.bn", self.number("bn_eps"), **attributes)

    def _attended(self, t: Template, x: Variable) -> Variable:
        (height, width), side, channels = t.feature.size, self._window(t.feature), t.feature.channels
        z = into_windows(t, pad_below(t, x, -height % side, -width % side), channels, side)
        heads = self.integer("heads")
        value = channels // heads
        found: list[Variable] = []
        for head in range(heads):
            part = cut(t, z, 1, head * value, (head + 1) * value) if heads > 1 else z
            found.append(self._head(t, t.add(part, found[-1]) if found else part, head, side, value))
        joined = concat(t, found, 1) if heads > 1 else found[0]
        y = self._conv(t, t.relu(joined), f"{self._prefix}attn.proj.1")
        return out_of_windows(t, y, channels, side)

    def _head(self, t: Template, z: Variable, head: int, side: int, value: int) -> Variable:
        """[windows, C / heads, w, w] -> the same."""
        attention, eps, width = f"{self._prefix}attn", self.number("bn_eps"), self.integer("key_dim")
        conv, bn = f"{attention}.qkvs.{head}.c", f"{attention}.qkvs.{head}.bn"
        bounds = (0, width, 2 * width, 2 * width + value)
        rows = [range(start, stop) for start, stop in pairwise(bounds)]
        q, k, v = (conv_bn_rows(t, z, conv, bn, eps, each) for each in rows)
        conv, bn, scale = f"{attention}.dws.{head}.c", f"{attention}.dws.{head}.bn", width**-0.5
        weight, shift = t.folded(f"{conv}.weight", bn, eps, factor=scale)
        border = [self.integer("kernel") // 2] * 4
        q = t.conv(q, weight, t.constant(shift * scale, f"{conv}.bias"), pads=border, group=width)
        q, k, v = (reshape(t, each, (0, 1, count, side**2)) for each, count in ((q, width), (k, width), (v, value)))
        y = attend(t, q, k, v, bias=self._bias(t, head, side))
        return reshape(t, y, (0, value, side, side))

    def _bias(self, t: Template, head: int, side: int) -> Array:
        """What is added to the logits of a head: [1, 1, w^2, w^2]."""
        row, column = np.divmod(np.arange(side * side), side)
        down, right = (np.abs(axis[:, None] - axis[None]) for axis in (row, column))
        bias: Array = t.values(f"{self._prefix}{_BIASES}")[head][down * side + right][None, None]
        return bias
