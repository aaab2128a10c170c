"""AIFI: the transformer encoder layer that RT-DETR runs on its deepest map.

Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", CVPR 2024, arXiv:2304.08069.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from ..forms import AIFI_LAYERS, AIFI_MIXED, HiLoHeads
from .activations import gelu
from .catalogue import CatalogueBlock
from .layers import linear
from .mixers import HiLo, additive, additive_parameters
from .norms import token_norm
from .transformer import attend, dense, in_heads, like_map, reshape, transpose, without_separate
from .widths import require_divisor, require_static

_IN_TRANSFORMERS = {
    r"self_attn_layer_norm\.": "norm1.",
    r"final_layer_norm\.": "norm2.",
    r"self_attn\.o_proj\.": "self_attn.out_proj.",
    r"mlp\.": "",
}
_TEMPERATURE = 10000.0
_PLAIN = tuple(AIFI_LAYERS)
_ADDITIVE, _HILO = AIFI_MIXED


class AIFI(CatalogueBlock):
    """q, k and v are 1x1 convolutions of the map: (x + pos) W = x W + pos W, and pos W is a constant map.

    The scale of the logits is part of q. The biases of k and v are gone: a softmax does not see what it adds to all
    logits of a query, and what is added to all values is added to the output.
    """

    name = "aifi"
    title = "AIFI (RT-DETR encoder layer)"
    demand = 47
    quadratic = (*_PLAIN, _HILO)
    paper = "DETRs Beat YOLOs on Real-time Object Detection, CVPR 2024, arXiv:2304.08069"
    reference = (
        "lyuwenyu/RT-DETR, hybrid_encoder.py; ultralytics/ultralytics, nn/modules/transformer.py; "
        "Amshaker/SwiftFormer, models/swiftformer.py; ziplab/LITv2, hilo.py"
    )
    formula = (
        "t = LN1(t + attention(q = k = t + pos, v = t)), y = LN2(t + fc2(gelu(fc1(t)))), t: positions as tokens; "
        "efficient-additive: final(Proj(g k) + q) for attention, q and k of length 1, g = sum_i a_i q_i, a = q w_g of "
        "length 1; hilo: attention within windows beside attention to the means of all windows"
    )
    untrained = "normalised: every position's channels come out with mean 0 and variance 1, whatever came in"
    variants: ClassVar[dict[str, str]] = {
        "rtdetr": "the paper's code, and Ultralytics before 8.4: positions column by column on tokens row by row",
        "ultralytics": "Ultralytics 8.4 and later: positions row by row; the same on square maps",
        "efficient-additive": "SwiftFormer's attention in its place, as collections for RT-DETR have it; no pos",
        "hilo": "LITv2's attention in its place, as the same collections have it; no pos",
    }
    module_classes: ClassVar[dict[str, str]] = {_ADDITIVE: "AdditiveAIFI", _HILO: "HiLoAIFI"}
    settings = (
        Setting("hidden", int, 1024, "width of the feed-forward part", minimum=1),
        Setting("heads", int, 8, "heads, a divisor of C", minimum=1, variants=(*_PLAIN, _HILO)),
        Setting("window", int, 2, "side of a window; a map that it does not divide is padded", 1, variants=(_HILO,)),
        Setting("alpha", float, 0.5, "part of the heads that is for low frequencies, 0 to 1", 0, variants=(_HILO,)),
        Setting("qkv_bias", bool, False, "whether q, k and v have biases", variants=(_HILO,)),
        Setting("normalize_before", bool, False, "LayerNorm before each part instead of after it", variants=_PLAIN),
        Setting("activation", str, "gelu", "gelu in RT-DETR's HybridEncoder and in Ultralytics, relu by default in the "
                "class TransformerEncoderLayer", choices=("gelu", "relu"), later=True, variants=_PLAIN),
        Setting("temperature", float, _TEMPERATURE, "base of the rates of the position code", above=0, later=True,
                variants=_PLAIN),
        Setting("ln_eps", float, 1e-5, "epsilon of the LayerNorms", above=0, variants=_PLAIN),
        Setting("norm_eps", float, 1e-6, "epsilon of the LayerNorms of maps", above=0, variants=(_ADDITIVE, _HILO)),
    )  # fmt: skip
    aliases = (
        (r"hilo\.(.*)", r"HiLo.\1"),
        (r"effaddattention\.proj\.(\w+)", r"effaddattention.Proj.\1"),
    )

    @property
    def _names(self) -> tuple[str, str, str]:
        return (AIFI_LAYERS | AIFI_MIXED)[str(self.variant)]

    @property
    def _hilo(self) -> HiLo:
        heads = HiLoHeads(self.integer("heads"), self.number("alpha"), self.integer("window"))
        return HiLo(self._names[0], heads, self.integer("window"), self.flag("qkv_bias"))

    def official_key(self, key: str) -> str:
        if self.variant in AIFI_MIXED:
            return super().official_key(key)
        for theirs, ours in _IN_TRANSFORMERS.items():
            key = re.sub(f"^{theirs}", ours, key)
        for names in AIFI_LAYERS.values():
            for theirs, ours in zip(names, self._names, strict=True):
                if key.startswith(f"{theirs}."):
                    return ours + key[len(theirs) :]
        return key

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """q, k and v joined; without the table of positions that an exporter writes beside them."""
        arrays = {key: values for key, values in arrays.items() if key != "position"}
        separate = r"(self_attn|ma)\.(q|k|v)_proj\.(weight|bias)"
        return without_separate(arrays, separate, "qkv", lambda match: f"{match[1]}.in_proj_{match[3]}")

    def check(self, feature: FeatureMap) -> None:
        if self.variant == _ADDITIVE:
            return
        require_divisor(feature, self.integer("heads"), "heads")
        if self.variant == _HILO:
            if self.number("alpha") > 1:
                raise BlockError(f"alpha of aifi is at most 1, not {self.number('alpha'):g}", option="settings")
            require_static(feature, "hilo cuts the map into windows")
            return
        if feature.channels % 4:
            raise BlockError(
                f"aifi codes positions in four parts of the channels, and {feature.label} has {feature.channels}, "
                "no multiple of 4"
            )
        require_static(feature, "aifi codes the position on the map")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self.integer("hidden")
        attention, first, second = self._names
        norms = {"norm1": (channels,), "norm2": (channels,)}
        if self.variant in AIFI_MIXED:
            feed_forward = {first: (hidden, channels, 1, 1), second: (channels, hidden, 1, 1)}
            own = additive_parameters(attention, channels) if self.variant == _ADDITIVE else None
            return (own or self._hilo.parameters(channels)) | layer_shapes({**feed_forward, **norms})
        layers = {f"{attention}.out_proj": (channels, channels), first: (hidden, channels), second: (channels, hidden)}
        return {
            f"{attention}.in_proj_weight": (3 * channels, channels),
            f"{attention}.in_proj_bias": (3 * channels,),
            **layer_shapes({**layers, **norms}),
        }

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shapes, attention = self.parameters(feature), self._names[0]
        if self.variant in AIFI_MIXED:
            normal = {key: shape for key, shape in shapes.items() if key.endswith("w_g")}
            values = torch_default({key: shape for key, shape in shapes.items() if key not in normal}, rng)
            values |= {key: rng.standard_normal(shape).astype(np.float32) for key, shape in normal.items()}
            return {key: values[key] for key in shapes}
        weight, bias = f"{attention}.in_proj_weight", f"{attention}.in_proj_bias"
        layers = torch_default({key: shape for key, shape in shapes.items() if "in_proj" not in key}, rng)
        bound = np.sqrt(6 / (4 * feature.channels))  # torch's MultiheadAttention: Xavier over q, k and v together
        values = layers | {weight: rng.uniform(-bound, bound, shapes[weight]).astype(np.float32)}
        values |= {key: np.zeros(shapes[key], np.float32) for key in (bias, f"{attention}.out_proj.bias")}
        return {key: values[key] for key in shapes}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if not self.flag("normalize_before"):
            return super().identity(feature)
        return self.with_biases(feature, {f"{self._names[0]}.out_proj": 0.0, self._names[2]: 0.0})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        attention, first, _ = self._names
        hidden = shapes.get(f"{first}.weight")
        found: dict[str, object] = {"hidden": hidden[0]} if hidden else {}
        if self.variant == _HILO and any(key.startswith(f"{attention}.") for key in shapes):
            low, channels = shapes.get(f"{attention}.l_q.weight", (0, 1))
            found["alpha"] = low / channels
            found["qkv_bias"] = any(key in shapes for key in (f"{attention}.l_q.bias", f"{attention}.h_qkv.bias"))
        return found

    @property
    def is_quadratic(self) -> bool:
        return super().is_quadratic and (self.variant != _HILO or self._hilo.heads.low > 0)

    def scores(self, height: int, width: int) -> tuple[int, int]:
        side = self.integer("window") or 1
        windows = -(-height // side) * -(-width // side)
        return windows * side**2, windows

    def emit(self, t: Template, lowering: str) -> Variable:
        _, first, second = self._names
        eps = self.number("norm_eps") or self.number("ln_eps")
        if self.variant in AIFI_MIXED:
            x = _as_map(t, token_norm(t, self._plus_attended(t), "norm1", eps))
            x = t.add(x, linear(t, gelu(t, linear(t, x, first)), second))
            return _as_map(t, token_norm(t, _as_tokens(t, x), "norm2", eps))
        if self.flag("normalize_before"):
            n = _as_map(t, token_norm(t, _as_tokens(t, t.x), "norm1", eps))
            tokens = _as_tokens(t, t.add(t.x, self._attended(t, n)))
            inner = token_norm(t, tokens, "norm2", eps)
        else:
            inner = tokens = token_norm(t, _as_tokens(t, t.add(t.x, self._attended(t, t.x))), "norm1", eps)
        activation = gelu if self.text("activation") == "gelu" else Template.relu
        tokens = t.add(tokens, dense(t, activation(t, dense(t, inner, first)), second))
        return _as_map(t, tokens if self.flag("normalize_before") else token_norm(t, tokens, "norm2", eps))

    def _plus_attended(self, t: Template) -> Variable:
        """x plus SwiftFormer's or LITv2's attention to it, as tokens."""
        if self.variant == _HILO:
            return _as_tokens(t, t.add(t.x, self._hilo.emit(t)))
        tokens = _as_tokens(t, t.x)
        return t.add(tokens, additive(t, tokens, self._names[0]))

    def _attended(self, t: Template, x: Variable) -> Variable:
        """The attention part on a map, its output projection included; a map again."""
        channels, heads, name = t.feature.channels, self.integer("heads"), self._names[0]
        scale = (channels // heads) ** -0.5
        weights = t.values(f"{name}.in_proj_weight")
        biases = t.values(f"{name}.in_proj_bias").reshape(3, channels)
        position = positions(
            channels, *t.feature.size, by_rows=self.variant == "ultralytics", temperature=self.number("temperature")
        )
        parts = []
        for number, factor in enumerate((scale, 1.0, 1.0)):
            rows = range(number * channels, (number + 1) * channels)
            kernel = t.rows(f"{name}.in_proj_weight", rows, factor=factor, shape=(channels, channels, 1, 1))
            y = t.conv(x, kernel)
            if number < 2:
                shift = np.tensordot(weights[list(rows)], position, 1) * factor
                if number == 0:
                    shift += biases[0].reshape(-1, 1, 1) * factor
                y = t.add(y, t.constant(shift[None], f"{name}.position_{'qk'[number]}"))
            parts.append(in_heads(t, y, heads, channels // heads))
        o = like_map(t, attend(t, *parts), channels)
        bias = t.values(f"{name}.out_proj.bias") + t.values(f"{name}.out_proj.weight") @ biases[2]
        out = t.weight(f"{name}.out_proj.weight", (channels, channels, 1, 1))
        return t.conv(o, out, t.constant(bias, f"{name}.out_proj.bias"))

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"before": self.flag("normalize_before")} if self.variant in AIFI_LAYERS else {}


def positions(channels: int, height: int, width: int, *, by_rows: bool, temperature: float = _TEMPERATURE) -> Array:
    """The position code as a map [C, H, W], float64: sine and cosine of two coordinates at C/4 rates.

    ``by_rows``: row and column of every position. Otherwise what comes of a table made column by column and read row
    by row: the token of number n = y W + x gets the code of column n // H and row n % H, columns first.
    """
    rates = temperature ** -(np.arange(channels // 4) / (channels // 4))
    number = np.arange(height * width)
    coordinates = (number // width, number % width) if by_rows else (number // height, number % height)
    angles = [coordinate * rates[:, None] for coordinate in coordinates]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)]).reshape(channels, height, width)


def _as_tokens(t: Template, x: Variable) -> Variable:
    """[N, C, H, W] -> [N, 1, H * W, C]; four axes, so that no constant after it has to be given another rank."""
    places = t.feature.area if t.feature.static else -1
    return transpose(t, reshape(t, x, (0, 1, t.feature.channels, places)), (0, 1, 3, 2))


def _as_map(t: Template, tokens: Variable) -> Variable:
    return like_map(t, transpose(t, tokens, (0, 1, 3, 2)), t.feature.channels)
