"""MHSA: all-to-all self-attention on a map with learned positions, in place of a convolution (BoTNet).

Srinivas et al., "Bottleneck Transformers for Visual Recognition", CVPR 2021, arXiv:2101.11605.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from onnx_graphsurgeon import Constant

from graphsurgery.blocks import Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from .catalogue import CatalogueBlock
from .layers import linear, linear_rows
from .transformer import attend, concat, in_heads, like_map, product, reshape, transpose
from .widths import require_divisor, require_static

_LUCIDRAINS = "lucidrains"
ABSOLUTE, RELATIVE = ("pos_emb.height", "pos_emb.width"), ("pos_emb.rel_height", "pos_emb.rel_width")
"""keys of lucidrains' positions of rows and of columns"""


class MHSA(CatalogueBlock):
    """botnet: the scale is part of q's weights; the position terms of all rows and columns are products with constants,
    spread over the keys by one more product with zeros and ones. yolo: the position table is added up and constant.
    Absolute positions: q k + q p = q (k + p), and p is a constant map.
    """

    name = "mhsa"
    title = "Multi-Head Self-Attention (BoTNet)"
    demand = 46
    quadratic = True
    paper = "Bottleneck Transformers for Visual Recognition, CVPR 2021, arXiv:2101.11605"
    reference = (
        "the author's gist as in timm, layers/bottleneck_attn.py; yolo: MHSA of the YOLO collections; lucidrains: "
        "lucidrains/bottleneck-transformer-pytorch, Attention"
    )
    formula = (
        "o_i = sum_j softmax_j(e_ij) v_j; botnet: e_ij = q_i k_j / sqrt(d) + q_i (R_h[y_j - y_i] + R_w[x_j - x_i]); "
        "yolo: e_ij = q_i k_j + r_i q_j; lucidrains: e_ij = q_i (k_j + h[y_j] + w[x_j]) / sqrt(d)"
    )
    untrained = "a smoothed copy at about a seventh of its input's norm: there is no shortcut inside"
    remarks = (
        "the YOLO port multiplies the position of the query with the query of the key's place: the transpose of the "
        "paper's term",
        "lucidrains' heads may have any width, and give heads * dim_head channels: a block where that is C",
    )
    variants: ClassVar[dict[str, str]] = {
        "botnet": "the paper's: relative positions, scaled logits, no biases",
        "yolo": "the YOLO port's: biases, logits not scaled, absolute positions if pos_emb, times the keys' q",
        _LUCIDRAINS: "absolute positions by default, scaled like the logits; no biases; heads as wide as C / heads",
    }
    module_classes: ClassVar[dict[str, str]] = {
        "botnet": "BottleneckAttention",
        "yolo": "YoloMHSA",
        _LUCIDRAINS: "LucidrainsAttention",
    }
    aliases = ((r"rel_([hw])", r"rel_\1_weight"),)
    settings = (
        Setting("heads", int, 4, "heads, a divisor of C", minimum=1),
        Setting("key_dim", int, None, "channels of a head's q and k, else C / heads", minimum=1, variants=("botnet",)),
        Setting("qkv_bias", bool, False, "whether q, k and v have biases", variants=("botnet",)),
        Setting("scale_pos_embed", bool, False, "whether the position term is scaled too", variants=("botnet",)),
        Setting(
            "pos_emb", bool, False, "whether there is a position term (fixes height and width)", variants=("yolo",)
        ),
        Setting("positions", str, "absolute", "of the keys, or relative to the query's (rel_pos_emb=True)",
                choices=("absolute", "relative"), variants=(_LUCIDRAINS,)),
    )  # fmt: skip

    @property
    def _placed(self) -> bool:
        """Whether there is a position term."""
        return self.variant != "yolo" or self.flag("pos_emb")

    @property
    def _qkv(self) -> str:
        """Prefix of the convolution that gives q, k and v together."""
        return "to_qkv" if self.variant == _LUCIDRAINS else "qkv"

    @property
    def _tables(self) -> tuple[str, str]:
        """Keys of the positions of rows and of columns."""
        if self.variant == _LUCIDRAINS:
            return ABSOLUTE if self.text("positions") == "absolute" else RELATIVE
        return "pos_embed.height_rel", "pos_embed.width_rel"

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
        key, tables = self._key_dim(feature), self._tables
        shapes = layer_shapes({self._qkv: (2 * heads * key + channels, channels, 1, 1)}, bias=self.flag("qkv_bias"))
        lengths = [side if tables == ABSOLUTE else 2 * side - 1 for side in feature.size]
        return shapes | {table: (length, key) for table, length in zip(tables, lengths, strict=True)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shapes = self.parameters(feature)
        tables = {key for key in shapes if key in self._tables or "rel" in key}
        values = torch_default({key: shape for key, shape in shapes.items() if key not in tables}, rng)
        for key, shape in shapes.items():
            if self.variant == "botnet" and key != "qkv.bias":
                # normal, cut off at 2, and as wide as one over the root of the fan-in
                values[key] = np.clip(rng.normal(0, shape[1] ** -0.5, shape), -2, 2).astype(np.float32)
            elif key in tables:
                width = shape[1] if self.variant == _LUCIDRAINS else 1
                values[key] = (rng.standard_normal(shape) * width**-0.5).astype(np.float32)
        return {key: values[key] for key in shapes}

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if self.variant == "yolo":
            found: dict[str, object] = {"pos_emb": "rel_h_weight" in shapes} if "query.weight" in shapes else {}
            return found | ({"heads": shapes["rel_h_weight"][1]} if "rel_h_weight" in shapes else {})
        if self.variant == _LUCIDRAINS:
            table = next((tables[0] for tables in (ABSOLUTE, RELATIVE) if tables[0] in shapes), "")
            if "to_qkv.weight" not in shapes or not table:
                return {}
            positions = "absolute" if table == ABSOLUTE[0] else "relative"
            return {"heads": max(1, shapes["to_qkv.weight"][0] // (3 * shapes[table][1])), "positions": positions}
        height = self._tables[0]
        if not {"qkv.weight", height} <= set(shapes):
            return {}
        (outputs, channels), key = shapes["qkv.weight"][:2], shapes[height][1]
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
        if self._tables == ABSOLUTE:
            return q, t.add(k, self._absolute(t)), v, []
        scaled = self.variant == _LUCIDRAINS or self.flag("scale_pos_embed")
        return q, k, v, [self._relative(t, q, 1.0 if scaled else 1 / scale)]  # the scale that is part of q undone

    def _projected(self, t: Template, start: int, stop: int, factor: float) -> Variable:
        rows, biased = range(start, stop), self.flag("qkv_bias")
        return linear_rows(t, t.x, self._qkv, rows, bias=biased, factor=factor)

    def _absolute(self, t: Template) -> Constant:
        """The positions of the keys, [1, 1, d, HW]."""
        height, width = (t.values(table).T for table in self._tables)
        places = (height[:, :, None] + width[:, None, :]).reshape(1, 1, len(height), -1)
        return t.constant(places, "pos_emb")

    def _relative(self, t: Template, q: Variable, factor: float) -> Variable:
        """The relative position terms [N, heads, HW, HW] of the scaled queries [N, heads, d, HW]."""
        (height, width), heads = t.feature.size, self.integer("heads")
        tables = [
            _offsets(t.values(key) * factor, side) for key, side in zip(self._tables, (height, width), strict=True)
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
            rows = product(t, by_row, t.constant(tables[0][None, None], self._tables[0]), 5)
            columns = product(t, by_column, t.constant(tables[1][None, None], self._tables[1]), 5)
            return concat(t, [rows, transpose(t, columns, (0, 1, 3, 2, 4))], 4)

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"bias": self.flag("qkv_bias"), "size": feature.size if self._placed else None}


def _offsets(table: Array, side: int) -> Array:
    """[2 side - 1, d] -> [query, d, key]: the row of the table for each place of a query and of a key."""
    places = np.arange(side)
    rows: Array = table[places[None] - places[:, None] + side - 1].transpose(0, 2, 1)
    return rows
