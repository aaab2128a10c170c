"""Swin transformer block: attention within windows, plain or shifted by half a window.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021, arXiv:2103.14030.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from ..forms import SWIN_OUTSIDE
from .activations import gelu
from .catalogue import CatalogueBlock
from .norms import token_norm
from .transformer import attention, concat, cut, dense, last_axis, reshape, transpose, without_separate
from .widths import require_divisor, require_static

_TABLE = "attn.relative_position_bias_table"
_SEPARATE = {
    r"(attention\.self)\.(query|key|value)\.(\w+)": ("query", "key", "value"),
    r"(attention)\.([qkv])_proj\.(\w+)": ("q", "k", "v"),
}
_FOLLOWS = r"attn_mask|attn\.mask|(attn|attention\.(self|relative_position_bias))\.relative_position_index"
"""buffers of published state_dicts that follow from the sizes"""


class SwinBlock(CatalogueBlock):
    """Bias table and mask are one constant. The scale of the logits is part of q; the biases of k and v are gone: a
    softmax does not see what it adds to all logits of a query, and what is added to all values is added to the output.
    """

    name = "swin"
    title = "Swin Transformer Block"
    demand = 48
    paper = "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021, arXiv:2103.14030"
    reference = "microsoft/Swin-Transformer, models/swin_transformer.py; padding as in the authors' detection code"
    formula = "z = x + proj(attention within windows of LN1(x)), y = z + fc2(gelu(fc1(LN2(z))))"
    untrained = "its input plus two terms that start small; about the scale of its input"
    variants: ClassVar[dict[str, str]] = {
        "window": "plain windows: shift_size 0, every second block of a stage",
        "shifted": "the map rolled by half a window, with the mask for places that are no neighbours",
    }
    identity_learns = True
    settings = (
        Setting("window", int, 7, "side of a window; a map that it does not divide is padded", minimum=1),
        Setting("heads", int, None, "heads; C/32, at least 1, where not given", minimum=1),
        Setting("mlp_ratio", float, 4.0, "hidden width of the MLP over C", above=0),
        Setting("hidden", int, None, "hidden width of the MLP; overrules mlp_ratio", minimum=1),
        Setting("qkv_bias", bool, True, "whether q, k and v have biases"),
        Setting("ln_eps", float, 1e-5, "epsilon of the LayerNorms", above=0),
    )
    aliases = (
        (r"layernorm_before\.(\w+)", r"norm1.\1"),
        (r"layernorm_after\.(\w+)", r"norm2.\1"),
        (r"attention\.(?:self|relative_position_bias)\.relative_position_bias_table", _TABLE),
        (r"attention\.(?:output\.dense|o_proj)\.(\w+)", r"attn.proj.\1"),
        (r"(?:intermediate\.dense|mlp\.0)\.(\w+)", r"mlp.fc1.\1"),
        (r"(?:output\.dense|mlp\.3)\.(\w+)", r"mlp.fc2.\1"),
    )

    def _heads(self, feature: FeatureMap) -> int:
        return int(self.values["heads"] or max(feature.channels // 32, 1))

    def default_hidden(self, feature: FeatureMap) -> int:
        return int(feature.channels * self.number("mlp_ratio"))

    def _window(self, feature: FeatureMap) -> tuple[int, int]:
        """(window, shift) in force: on a small map the window is the map's shorter side, and there is no shift."""
        window = self.integer("window")
        if min(feature.size) <= window:
            return min(feature.size), 0
        return window, window // 2 if self.variant == "shifted" else 0

    def check(self, feature: FeatureMap) -> None:
        require_static(feature, "swin cuts the map into windows")
        require_divisor(feature, self._heads(feature), "heads")
        if self.hidden(feature) < 1:
            raise BlockError(f"an mlp_ratio of {self.values['mlp_ratio']} leaves no hidden channel at {feature.label}")

    def warnings(self, feature: FeatureMap) -> list[str]:
        (height, width), (window, shift) = feature.size, self._window(feature)
        found = []
        if height % window or width % window:
            found.append(
                f"a window of {window} does not divide {height} x {width}: the map is padded with zeros, as the "
                "published detection code does"
            )
        if self.variant == "shifted" and not shift:
            found.append(f"the map of {height} x {width} is one window wide or high: nothing is shifted")
        return found

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self.hidden(feature)
        layers = {"attn.proj": (channels, channels), "norm2": (channels,)}
        layers |= {"mlp.fc1": (hidden, channels), "mlp.fc2": (channels, hidden)}
        return {
            **layer_shapes({"norm1": (channels,)}),
            _TABLE: ((2 * self._window(feature)[0] - 1) ** 2, self._heads(feature)),
            **layer_shapes({"attn.qkv": (3 * channels, channels)}, bias=self.flag("qkv_bias")),
            **layer_shapes(layers),
        }

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        values = {}
        for key, shape in self.parameters(feature).items():
            if len(shape) > 1:
                values[key] = rng.normal(0.0, 0.02, shape).astype(np.float32)
            else:
                values[key] = np.full(shape, float("norm" in key and key.endswith("weight")), np.float32)
        return values

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {"attn.proj": 0.0, "mlp.fc2": 0.0})

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        kept = {key: values for key, values in arrays.items() if not re.fullmatch(_FOLLOWS, key)}
        for pattern, parts in _SEPARATE.items():
            kept = without_separate(kept, pattern, parts, lambda match: f"attn.qkv.{match[3]}")
        return kept

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if not {_TABLE, "mlp.fc1.weight", "attn.qkv.weight"} <= set(shapes):
            return {}
        found: dict[str, object] = {"heads": shapes[_TABLE][1], "hidden": shapes["mlp.fc1.weight"][0]}
        return found | {"window": (int(shapes[_TABLE][0] ** 0.5) + 1) // 2, "qkv_bias": "attn.qkv.bias" in shapes}

    # ------------------------------------------------------------------ the template

    def emit(self, t: Template, lowering: str) -> Variable:
        eps = self.number("ln_eps")
        tokens = transpose(t, t.x, (0, 2, 3, 1))
        windows = self._into_windows(t, token_norm(t, tokens, "norm1", eps))
        z = t.add(tokens, self._back(t, self._attended(t, windows)))
        z = t.add(z, dense(t, gelu(t, dense(t, token_norm(t, z, "norm2", eps), "mlp.fc1")), "mlp.fc2"))
        return transpose(t, z, (0, 3, 1, 2))

    def _padded(self, feature: FeatureMap) -> tuple[int, int]:
        window, _ = self._window(feature)
        height, width = (-(-side // window) * window for side in feature.size)
        return height, width

    def _into_windows(self, t: Template, z: Variable) -> Variable:
        """[N, H, W, C], padded and rolled, as [N, windows, window^2, C]."""
        window, shift = self._window(t.feature)
        (height, width), (tall, wide) = t.feature.size, self._padded(t.feature)
        if (tall, wide) != (height, width):
            pads = [0, 0, 0, 0, 0, tall - height, wide - width, 0]
            z = t.op("Pad", z, t.integers(pads, "pads")) if t.opset >= 11 else t.op("Pad", z, pads=pads)
        for axis, side in ((1, tall), (2, wide)) if shift else ():
            z = concat(t, [cut(t, z, axis, shift, side), cut(t, z, axis, 0, shift)], axis)
        z = reshape(t, z, (0, tall // window, window, wide // window, window, t.feature.channels))
        return reshape(t, transpose(t, z, (0, 1, 3, 2, 4, 5)), (0, -1, window * window, t.feature.channels))

    def _back(self, t: Template, z: Variable) -> Variable:
        """What _into_windows does undone."""
        window, shift = self._window(t.feature)
        (height, width), (tall, wide) = t.feature.size, self._padded(t.feature)
        z = reshape(t, z, (0, tall // window, wide // window, window, window, t.feature.channels))
        z = reshape(t, transpose(t, z, (0, 1, 3, 2, 4, 5)), (0, tall, wide, t.feature.channels))
        for axis, side, kept in ((1, tall, height), (2, wide, width)):
            if shift:
                z = concat(t, [cut(t, z, axis, side - shift, side), cut(t, z, axis, 0, kept - shift)], axis)
            elif kept < side:
                z = cut(t, z, axis, 0, kept)
        return z

    def _in_windows(self, feature: FeatureMap, values: Array) -> Array:
        """Values per position of the padded map, [H, W], in the order of the tokens: [windows, window^2]."""
        window, shift = self._window(feature)
        values = np.roll(values, (-shift, -shift), (0, 1))
        tall, wide = values.shape
        values = values.reshape(tall // window, window, wide // window, window)
        ordered: Array = values.transpose(0, 2, 1, 3).reshape(-1, window * window)
        return ordered

    def _attended(self, t: Template, tokens: Variable) -> Variable:
        """Attention within the windows and the output projection, [N, windows, window^2, C]."""
        channels, heads = t.feature.channels, self._heads(t.feature)
        width, places = channels // heads, self._window(t.feature)[0] ** 2
        biases = t.values("attn.qkv.bias").reshape(3, channels) if self.values["qkv_bias"] else np.zeros((3, channels))
        parts = []
        for number, factor in enumerate((width**-0.5, 1.0, 1.0)):
            rows = range(number * channels, (number + 1) * channels)
            y = t.op("MatMul", tokens, t.rows("attn.qkv.weight", rows, factor=factor, transposed=True))
            if number == 0 and self.values["qkv_bias"]:
                y = t.add(y, t.constant((biases[0] * factor).reshape(last_axis(t)), "attn.q.bias"))
            # [N, windows, heads, window^2, width]
            parts.append(transpose(t, reshape(t, y, (0, -1, places, heads, width)), (0, 1, 3, 2, 4)))
        q, k, v = parts
        k = transpose(t, k, (0, 1, 2, 4, 3))  # one that runtimes take into the product after it
        o = t.op("MatMul", attention(t, q, k, rank=5, bias=self._bias(t)), v)
        o = reshape(t, transpose(t, o, (0, 1, 3, 2, 4)), (0, -1, places, channels))
        y = dense(t, o, "attn.proj", bias=False)
        bias = t.values("attn.proj.bias") + t.values("attn.proj.weight") @ biases[2]
        return t.add(y, t.constant(bias.reshape(last_axis(t)), "attn.proj.bias"))

    def _bias(self, t: Template) -> Array:
        """What is added to the logits: [1, 1 or windows, heads, window^2, window^2]."""
        window, shift = self._window(t.feature)
        row, column = np.divmod(np.arange(window * window), window)
        down, right = (axis[:, None] - axis[None] + window - 1 for axis in (row, column))
        bias: Array = t.values(_TABLE)[down * (2 * window - 1) + right].transpose(2, 0, 1)[None, None]
        if not shift:
            return bias
        # after rolling, the last rows and columns come from the other end: three regions along either axis
        regions = [
            np.searchsorted([side - window, side - shift], np.arange(side), side="right")
            for side in self._padded(t.feature)
        ]
        region = np.roll(3 * regions[0][:, None] + regions[1][None], (shift, shift), (0, 1))
        places = self._in_windows(t.feature, region)
        bias = bias + np.where(places[:, :, None] == places[:, None], 0.0, SWIN_OUTSIDE)[None, :, None]
        return bias

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"heads": self._heads(feature), "shifted": self.variant == "shifted"}
