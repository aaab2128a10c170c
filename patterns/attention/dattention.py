"""DAttention: attention to points of the map that the queries move, DAT's deformable attention.

Xia et al., "Vision Transformer with Deformable Attention", CVPR 2022, arXiv:2201.00520.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from .activations import clip, gelu
from .catalogue import CatalogueBlock
from .layers import depthwise, linear
from .norms import token_norm
from .transformer import attend, cut, in_heads, like_map, logit_unit, reshape, transpose
from .widths import require_divisor, require_static

GRID, PRODUCT = "grid", "product"
_LN_EPS = 1e-5
_TABLE = "rpe_table"
_PER_POINT = (1, 1, 1, 2)


class DAttention(CatalogueBlock):
    """Points are computed in float32, and so is what is read there.

    Where there is no GridSample, before opset 16, a bilinear sample is a product with a matrix of tents: each position
    counts max(0, 1 - its distance to the point) along either side, which is 0 outside of the map by itself.
    """

    name = "dattention"
    title = "Deformable Attention (DAT)"
    demand = 16
    quadratic = True
    paper = "Vision Transformer with Deformable Attention, CVPR 2022, arXiv:2201.00520"
    reference = (
        "LeapLabTHU/DAT, models/dat_blocks.py, DAttentionBaseline; "
        "z1069614715/objectdetection_script, cv-attention/DAttention.py"
    )
    formula = (
        "y = proj_out(a), a = v softmax(q^T k / sqrt(d) + bias)^T for each head, q = proj_q(x), k and v of x at the "
        "points r + f tanh(conv_offset(q)) / (side - 1); dwc: a + dw(q) and no bias; table: bias from a table"
    )
    untrained = "a learned term in its place, of about a quarter of its scale, in table an eighth: there is no shortcut"
    variants: ClassVar[dict[str, str]] = {
        "dwc": "DAttention as it goes round on its own: a depthwise convolution of q says where a position is",
        "table": "as DAT is published: a table of biases for relative positions, of the size of the map",
    }
    settings = (
        Setting("heads", int, 8, "heads", minimum=1),
        Setting("groups", int, 4, "groups of channels, each with points of its own", minimum=1),
        Setting("stride", int, 1, "positions from one point to the next; 8, 4, 2 and 1 in DAT", minimum=1),
        Setting("kernel", int, 3, "side of the convolution of the offsets; 9, 7, 5 and 3 in DAT", minimum=1),
        Setting("offset_range", float, 4.0, "how far points move, in points; below 0, as in DAT: over all of the map"),
    )

    def _points(self, feature: FeatureMap) -> tuple[int, int]:
        """Rows and columns of points."""
        kernel, stride = self.integer("kernel"), self.integer("stride")
        rows, columns = ((side + 2 * self._border - kernel) // stride + 1 for side in feature.size)
        return rows, columns

    def scores(self, height: int, width: int) -> tuple[int, int]:
        return height * width, prod(self._points(FeatureMap(1, height, width)))

    @property
    def _border(self) -> int:
        kernel = self.integer("kernel")
        return kernel // 2 if kernel != self.integer("stride") else 0

    def check(self, feature: FeatureMap) -> None:
        require_static(feature, "dattention reads the map at points between its positions")
        heads, groups = self.integer("heads"), self.integer("groups")
        require_divisor(feature, heads, "heads")
        if heads % groups:
            raise BlockError(f"{groups} groups of dattention do not divide its {heads} heads", option="settings")
        if min(self._points(feature)) < 2:
            rows, columns = (max(count, 0) for count in self._points(feature))
            raise BlockError(
                f"dattention needs two points along each side of {feature.label}, not {rows} x {columns}; "
                "set stride lower"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, side = feature.channels, self.integer("kernel")
        width = channels // self.integer("groups")
        shapes = layer_shapes({"conv_offset.0": (width, 1, side, side), "conv_offset.1.norm": (width,)})
        shapes |= layer_shapes({"conv_offset.3": (2, width, 1, 1)}, bias=False)
        shapes |= layer_shapes({f"proj_{name}": (channels, channels, 1, 1) for name in ("q", "k", "v", "out")})
        if self.variant == "dwc":
            return shapes | layer_shapes({_TABLE: (channels, 1, 3, 3)})
        height, wide = feature.size if feature.static else (1, 1)
        return shapes | {_TABLE: (self.integer("heads"), 2 * height - 1, 2 * wide - 1)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shapes = self.parameters(feature)
        values = torch_default({key: shape for key, shape in shapes.items() if key != _TABLE}, rng)
        if self.variant == "table":
            values[_TABLE] = np.clip(rng.normal(0.0, 0.01, shapes[_TABLE]), -2, 2).astype(np.float32)
        return values

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        raise self.no_identity("has no shortcut and cannot leave its input as it is")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        if len(shapes.get("conv_offset.0.weight", ())) == 4:
            width, _, _, found["kernel"] = shapes["conv_offset.0.weight"]
            if "proj_q.bias" in shapes and width:
                found["groups"] = shapes["proj_q.bias"][0] // width
        return found | ({"heads": shapes[_TABLE][0]} if len(shapes.get(_TABLE, ())) == 3 else {})

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return (GRID, PRODUCT) if opset >= 16 else (PRODUCT,)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return lowerings[0]

    def emit(self, t: Template, lowering: str) -> Variable:
        channels, heads, (rows, columns) = t.feature.channels, self.integer("heads"), self._points(t.feature)
        width, scale = channels // heads, (channels // heads) ** -0.5
        q = linear(t, t.x, "proj_q")
        points = self._moved(t, q)
        with t.statistics():
            read = self._read_by_grid(t, points) if lowering == GRID else self._read_by_product(t, points)
        z = reshape(t, t.cast(read), (-1, channels, rows, columns))
        k = t.conv(z, t.weight("proj_k.weight", factor=scale), t.weight("proj_k.bias", factor=scale))
        k, v = (reshape(t, each, (0, heads, width, rows * columns)) for each in (k, linear(t, z, "proj_v")))
        added = []
        if self.variant == "table":
            with t.statistics():
                added = [(self._bias_by_grid if lowering == GRID else self._bias_by_product)(t, points)]
        a = like_map(t, attend(t, in_heads(t, q, heads, width), k, v, added=added), channels)
        a = t.add(a, depthwise(t, q, _TABLE)) if self.variant == "dwc" else a
        return linear(t, a, "proj_out")

    def _moved(self, t: Template, q: Variable) -> Variable:
        """The points of each group, [N * groups, rows, columns, 2], x before y as GridSample has them, from -1 to 1."""
        width, (rows, columns) = t.feature.channels // self.integer("groups"), self._points(t.feature)
        y = reshape(t, q, (-1, width, *t.feature.size))
        weight, bias = t.weight("conv_offset.0.weight"), t.weight("conv_offset.0.bias")
        y = t.conv(y, weight, bias, strides=[self.integer("stride")] * 2, pads=[self._border] * 4, group=width)
        with t.statistics():
            hidden = gelu(t, token_norm(t, transpose(t, y, (0, 2, 3, 1)), "conv_offset.1.norm", _LN_EPS))
            offset = t.op("MatMul", hidden, t.rows("conv_offset.3.weight", [1, 0], transposed=True))
            down, right = ((np.arange(side) + 0.5) / (side - 1) * 2 - 1 for side in (rows, columns))
            own = t.constant(np.stack(np.meshgrid(right, down), -1)[None], "points")
            reach = self.number("offset_range")
            if reach < 0:
                return clip(t, t.add(offset, own), -1.0, 1.0)
            reaches = np.array([reach / (columns - 1), reach / (rows - 1)]).reshape(_PER_POINT)
            return t.add(t.mul(t.op("Tanh", offset), t.constant(reaches, "reach")), own)

    def _sampled(self, t: Template, x: gs.Tensor, points: Variable) -> Variable:
        mode = "linear" if t.opset >= 20 else "bilinear"
        return t.op("GridSample", x, points, mode=mode, padding_mode="zeros", align_corners=1)

    def _read_by_grid(self, t: Template, points: Variable) -> Variable:
        width = t.feature.channels // self.integer("groups")
        return self._sampled(t, reshape(t, t.x, (-1, width, *t.feature.size)), points)

    def _along(self, t: Template, points: Variable, axis: int, factor: float, shift: float) -> Variable:
        """One coordinate of all points, times a factor, plus a shift: [N * groups, points, 1, 1]."""
        rows, columns = self._points(t.feature)
        one = cut(t, reshape(t, points, (0, rows * columns, 1, 2)), 3, axis, axis + 1)
        return t.add(t.mul(one, t.scalar(factor, "scale")), t.scalar(shift, "centre"))

    def _tents(self, t: Template, distances: Variable) -> Variable:
        return t.relu(t.sub(t.scalar(1.0, "one"), t.op("Abs", distances)))

    def _read_by_product(self, t: Template, points: Variable) -> Variable:
        (height, wide), width = t.feature.size, t.feature.channels // self.integer("groups")
        rows, columns = self._points(t.feature)
        tents = []
        for axis, side, shape in ((1, height, (1, 1, height, 1)), (0, wide, (1, 1, 1, wide))):
            place = self._along(t, points, axis, (side - 1) / 2, (side - 1) / 2)
            tents.append(self._tents(t, t.sub(place, t.constant(np.arange(side).reshape(shape), "positions"))))
        shares = reshape(t, t.mul(*tents), (0, 1, rows * columns, height * wide))
        return t.op("MatMul", reshape(t, t.x, (-1, 1, width, height * wide)), transpose(t, shares, (0, 1, 3, 2)))

    def _bias_by_grid(self, t: Template, points: Variable) -> Variable:
        """What the table adds to the logits, [N, heads, H * W, points]. The images of a batch lie one below the other:
        the table is the same for all.
        """
        (height, wide), (rows, columns) = t.feature.size, self._points(t.feature)
        groups, heads, area, count = self.integer("groups"), self.integer("heads"), height * wide, rows * columns
        table = t.weight(_TABLE, (groups, heads // groups, 2 * height - 1, 2 * wide - 1), factor=1 / logit_unit(t))
        own = np.stack(np.meshgrid(np.linspace(-1, 1, wide), np.linspace(-1, 1, height)), -1)
        half = t.mul(reshape(t, points, (0, 1, count, 2)), t.scalar(-0.5, "half"))
        away = t.add(half, t.constant(own.reshape(1, area, 1, 2) / 2, "positions"))
        away = transpose(t, reshape(t, away, (-1, groups, area, count, 2)), (1, 0, 2, 3, 4))
        bias = self._sampled(t, table, reshape(t, away, (groups, -1, count, 2)))
        bias = reshape(t, bias, (groups, heads // groups, -1, area, count))
        return reshape(t, transpose(t, bias, (2, 0, 1, 3, 4)), (-1, heads, area, count))

    def _bias_by_product(self, t: Template, points: Variable) -> Variable:
        """The same as a product with the table from either side, one for the rows and one for the columns."""
        (height, wide), (rows, columns) = t.feature.size, self._points(t.feature)
        groups, heads, area, count = self.integer("groups"), self.integer("heads"), height * wide, rows * columns
        per = heads // groups

        def tents(axis: int, side: int) -> Variable:
            """[N * groups, points, side, 2 * side - 1]."""
            place = self._along(t, points, axis, (1 - side) / 2, (side - 1) / 2)
            steps = np.arange(side)[:, None] - np.arange(2 * side - 1)[None]
            return self._tents(t, t.add(place, t.constant(steps[None, None], "steps")))

        table = t.kept(_TABLE).reshape(groups, per, 2 * height - 1, 2 * wide - 1).transpose(0, 2, 1, 3)
        table = table.reshape(1, groups, 2 * height - 1, per * (2 * wide - 1)) / logit_unit(t)
        down = reshape(t, tents(1, height), (-1, groups, count * height, 2 * height - 1))
        bias = t.op("MatMul", down, t.constant(table, _TABLE))
        bias = reshape(t, bias, (-1, count, height * per, 2 * wide - 1))
        bias = t.op("MatMul", bias, transpose(t, tents(0, wide), (0, 1, 3, 2)))
        bias = transpose(t, reshape(t, bias, (-1, groups, count, height, per, wide)), (0, 1, 4, 3, 5, 2))
        return reshape(t, bias, (-1, heads, area, count))
