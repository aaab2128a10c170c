"""MHSA: all-to-all self-attention on a map with learned positions, in place of a convolution (BoTNet).

Srinivas et al., "Bottleneck Transformers for Visual Recognition", CVPR 2021, arXiv:2101.11605.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from .catalogue import CatalogueBlock
from .layers import linear
from .transformer import attend, concat, in_heads, like_map, product, reshape, transpose
from .widths import require_divisor, require_static

_HEIGHT, _WIDTH = "pos_embed.height_rel", "pos_embed.width_rel"


class MHSA(CatalogueBlock):
    """botnet: the scale is part of q's weights; the position terms of all rows and columns are products with constants,
    spread over the keys by one more product with zeros and ones. yolo: the position table is added up and constant.
    """

    name = "mhsa"
    title = "Multi-Head Self-Attention (BoTNet)"
    demand = 46
    quadratic = True
    paper = "Bottleneck Transformers for Visual Recognition, CVPR 2021, arXiv:2101.11605"
    reference = "the author's gist as in timm, layers/bottleneck_attn.py; yolo: MHSA of the YOLO collections"
    formula = (
        "o_i = sum_j softmax_j(e_ij) v_j; botnet: e_ij = q_i k_j / sqrt(d) + q_i (R_h[y_j - y_i] + R_w[x_j - x_i]); "
        "yolo: e_ij = q_i k_j + r_i q_j"
    )
    untrained = "a smoothed copy at about a seventh of its input's norm: there is no shortcut inside"
    variants: ClassVar[dict[str, str]] = {
        "botnet": "the paper's: relative positions, scaled logits, no biases",
        "yolo": "the YOLO port's: biases, logits not scaled, absolute positions if pos_emb, times the keys' q",
    }
    module_classes: ClassVar[dict[str, str]] = {"botnet": "BottleneckAttention", "yolo": "YoloMHSA"}
    settings = (
        Setting("heads", int, 4, "heads, a divisor of C", minimum=1),
        Setting("key_dim", int, None, "channels of a head's q and k, else C / heads", minimum=1, variants=("botnet",)),
        Setting("qkv_bias", bool, False, "whether q, k and v have biases", variants=("botnet",)),
        Setting("scale_pos_embed", bool, False, "whether the position term is scaled too", variants=("botnet",)),
        Setting(
            "pos_emb", bool, False, "whether there is a position term (fixes height and width)", variants=("yolo",)
        ),
    )

    @property
    def _placed(self) -> bool:
        """Whether there is a position term."""
        return self.variant == "botnet" or self.flag("pos_emb")

    def _key_dim(self, feature: FeatureMap) -> int:
        return int(self.values.get("key_dim") or feature.channels // self.integer("heads"))

    def check(self, feature: FeatureMap) -> None:
        require_divisor(feature, self.integer("heads"), "heads")
        if self._placed:
            require_static(feature, f"{self.spelled} has one weight per row and column")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, heads, shapes = feature.channels, self.integer("heads"), dict[str, tuple[int, ...]]()
        if self.variant == "yolo":
            width = channels // heads
            if self.values["pos_emb"]:
                shapes["rel_h_weight"] = (1, heads, width, 1, feature.size[1])
                shapes["rel_w_weight"] = (1, heads, width, feature.size[0], 1)
            return shapes | layer_shapes(dict.fromkeys(("query", "key", "value"), (channels, channels, 1, 1)))
        key = self._key_dim(feature)
        shapes = layer_shapes({"qkv": (2 * heads * key + channels, channels, 1, 1)}, bias=self.flag("qkv_bias"))
        return shapes | {_HEIGHT: (2 * feature.size[0] - 1, key), _WIDTH: (2 * feature.size[1] - 1, key)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shapes = self.parameters(feature)
        values = torch_default({key: shape for key, shape in shapes.items() if "rel" not in key}, rng)
        for key, shape in shapes.items():
            if self.variant == "botnet" and key != "qkv.bias":
                # normal, cut off at 2, and as wide as one over the root of the fan-in
                values[key] = np.clip(rng.normal(0, shape[1] ** -0.5, shape), -2, 2).astype(np.float32)
            elif "rel" in key:
                values[key] = rng.standard_normal(shape).astype(np.float32)
        return {key: values[key] for key in shapes}

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if self.variant == "yolo":
            found: dict[str, object] = {"pos_emb": "rel_h_weight" in shapes} if "query.weight" in shapes else {}
            return found | ({"heads": shapes["rel_h_weight"][1]} if "rel_h_weight" in shapes else {})
        if not {"qkv.weight", _HEIGHT} <= set(shapes):
            return {}
        (outputs, channels), key = shapes["qkv.weight"][:2], shapes[_HEIGHT][1]
        return {"key_dim": key, "heads": max(1, (outputs - channels) // (2 * key)), "qkv_bias": "qkv.bias" in shapes}

    def emit(self, t: Template, lowering: str) -> Variable:
        q, k, v, added = self._yolo(t) if self.variant == "yolo" else self._botnet(t)
        return like_map(t, attend(t, q, k, v, added=added), t.feature.channels)

    def _yolo(self, t: Template) -> tuple[Variable, Variable, Variable, list[Variable]]:
        q, k, v = (
            in_heads(t, linear(t, t.x, layer), self.integer("heads"), self._key_dim(t.feature))
            for layer in ("query", "key", "value")
        )
        if not self.values["pos_emb"]:
            return q, k, v, []
        table = t.values("rel_h_weight") + t.values("rel_w_weight")
        table = table.reshape(1, self.integer("heads"), -1, t.feature.area)
        return q, k, v, [product(t, table.transpose(0, 1, 3, 2), q)]

    def _botnet(self, t: Template) -> tuple[Variable, Variable, Variable, list[Variable]]:
        heads, key = self.integer("heads"), self._key_dim(t.feature)
        scale, keys = key**-0.5, heads * key
        rows = ((0, keys, scale), (keys, 2 * keys, 1.0), (2 * keys, 2 * keys + t.feature.channels, 1.0))
        q, k, v = (
            in_heads(t, self._projected(t, start, stop, factor), heads, (stop - start) // heads)
            for start, stop, factor in rows
        )
        undone = 1.0 if self.values["scale_pos_embed"] else 1 / scale  # the scale that is part of q
        return q, k, v, [self._relative(t, q, undone)]

    def _projected(self, t: Template, start: int, stop: int, factor: float) -> Variable:
        weight = t.rows("qkv.weight", range(start, stop), factor=factor)
        bias = t.constant(t.values("qkv.bias")[start:stop] * factor, "qkv.bias") if self.values["qkv_bias"] else None
        return t.conv(t.x, weight, bias)

    def _relative(self, t: Template, q: Variable, factor: float) -> Variable:
        """The position terms [N, heads, HW, HW] of the scaled queries [N, heads, d, HW]."""
        (height, width), heads = t.feature.size, self.integer("heads")
        tables = [
            _offsets(t.values(key) * factor, side) for key, side in zip((_HEIGHT, _WIDTH), (height, width), strict=True)
        ]
        spread = np.concatenate([np.kron(np.eye(height), np.ones(width)), np.kron(np.ones(height), np.eye(width))])
        if t.since(2):
            both, batch = self._both(t, q, tables), -1
        else:
            both, batch = self._both_of_five_axes(t, q, tables), 0
        with t.statistics():
            both = reshape(t, both, (batch, heads, height * width, height + width))
            return t.op("MatMul", both, t.constant(spread.reshape(1, 1, height + width, -1), "spread"))

    def _both(self, t: Template, q: Variable, tables: Sequence[Array]) -> Variable:
        """The terms of rows and of columns, [N * heads, H, W, H + W].

        The tables stand on the left: OpenCV's products with a constant on the right take the first of a batch for all.
        """
        height, width = t.feature.size
        grid = reshape(t, q, (-1, self._key_dim(t.feature), height, width))
        turned = transpose(t, grid, (0, 2, 1, 3)), transpose(t, grid, (0, 3, 1, 2))  # [.., H, d, W], [.., W, d, H]
        with t.statistics():
            rows, columns = (
                product(t, table[None].swapaxes(2, 3), x) for table, x in zip(tables, turned, strict=True)
            )  # [.., H, H, W], [.., W, W, H]: query, key, the other coordinate
            return concat(t, [transpose(t, rows, (0, 1, 3, 2)), transpose(t, columns, (0, 3, 1, 2))], 3)

    def _both_of_five_axes(self, t: Template, q: Variable, tables: Sequence[Array]) -> Variable:
        """The same as [N, heads, H, W, H + W], as edition 1 has it."""
        (height, width), heads, key = t.feature.size, self.integer("heads"), self._key_dim(t.feature)
        grid = reshape(t, q, (0, heads, key, height, width))
        by_row = transpose(t, grid, (0, 1, 3, 4, 2))  # [N, heads, H, W, d]
        by_column = transpose(t, grid, (0, 1, 4, 3, 2))  # [N, heads, W, H, d]
        with t.statistics():
            rows = product(t, by_row, t.constant(tables[0][None, None], _HEIGHT), 5)
            columns = product(t, by_column, t.constant(tables[1][None, None], _WIDTH), 5)
            return concat(t, [rows, transpose(t, columns, (0, 1, 3, 2, 4))], 4)

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"bias": self.flag("qkv_bias"), "size": feature.size if self._placed else None}


def _offsets(table: Array, side: int) -> Array:
    """[2 side - 1, d] -> [query, d, key]: the row of the table for each place of a query and of a key."""
    places = np.arange(side)
    rows: Array = table[places[None] - places[:, None] + side - 1].transpose(0, 2, 1)
    return rows
