"""MSDA: attention to the neighbours of each position, at several dilations.

Jiao et al., "DilateFormer: Multi-Scale Dilated Transformer for Visual Recognition", arXiv:2302.01791.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from .catalogue import CatalogueBlock
from .layers import linear, linear_rows
from .transformer import attend_to_neighbours, concat, like_map, reshape, unfolded
from .widths import require_divisor, require_odd


class MultiDilateLocalAttention(CatalogueBlock):
    """The heads of each dilation are on their own, q, k and v out of a convolution each."""

    name = "msda"
    title = "Multi-Scale Dilated Attention (DilateFormer)"
    demand = 26
    paper = "DilateFormer: Multi-Scale Dilated Transformer for Visual Recognition, arXiv:2302.01791"
    reference = "JIAOJIAYUASD/dilateformer, models/dilateformer.py"
    formula = (
        "y = proj(a), [q, k, v] = qkv(x), a_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j over the kernel^2 neighbours "
        "j of i at the dilation of the head; what is outside of the map is 0"
    )
    untrained = "a learned term in its place, of about a seventh of its scale: there is no shortcut"
    settings = (
        Setting("heads", int, 8, "heads, each of an equal part of the channels", minimum=1),
        Setting("scales", int, 4, "how many dilations; the authors have 3, for heads that 3 divides", minimum=1),
        Setting("first", int, 1, "smallest dilation", minimum=1),
        Setting("step", int, 1, "from one dilation to the next", minimum=1),
        Setting("kernel", int, 3, "side of the neighbourhood", minimum=1),
        Setting("qkv_bias", bool, False, "whether q, k and v have biases"),
    )

    def check(self, feature: FeatureMap) -> None:
        heads, scales = self.integer("heads"), self.integer("scales")
        require_divisor(feature, heads, "heads")
        require_odd(self, "kernel", self.integer("kernel"))
        if heads % scales:
            what = f"msda shares its heads among the scales, and {scales} do not divide {heads}"
            raise BlockError(what, option="settings")

    def warnings(self, feature: FeatureMap) -> list[str]:
        farthest = self._dilations()[-1] * (self.integer("kernel") // 2)
        short = [side for side in (feature.height, feature.width) if side is not None and side <= farthest]
        if not short:
            return []
        return [f"at the largest dilation, neighbours are {farthest} away: outside of {feature.label} everywhere"]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels = feature.channels
        shapes = layer_shapes({"qkv": (3 * channels, channels, 1, 1)}, bias=self.flag("qkv_bias"))
        return shapes | layer_shapes({"proj": (channels, channels)})

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        raise self.no_identity("has no shortcut and cannot leave its input as it is")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        return {"qkv_bias": "qkv.bias" in shapes} if "qkv.weight" in shapes else {}

    def _dilations(self) -> list[int]:
        first, step = self.integer("first"), self.integer("step")
        return [first + step * number for number in range(self.integer("scales"))]

    def emit(self, t: Template, lowering: str) -> Variable:
        dilations, channels = self._dilations(), t.feature.channels
        width = channels // len(dilations)
        parts = [self._part(t, number * width, width, dilation) for number, dilation in enumerate(dilations)]
        y = concat(t, parts, 1) if len(parts) > 1 else parts[0]
        return linear(t, like_map(t, y, channels), "proj")

    def _part(self, t: Template, start: int, width: int, dilation: int) -> Variable:
        """The heads of one dilation, whose channels begin at ``start``: [N, heads, d, positions]."""
        channels, kernel, bias = t.feature.channels, self.integer("kernel"), self.flag("qkv_bias")
        heads = self.integer("heads") // self.integer("scales")
        places, border = t.feature.area if t.feature.static else -1, dilation * (kernel // 2)
        scale = (width // heads) ** -0.5

        def projected(number: int, factor: float = 1.0) -> Variable:
            rows = range(number * channels + start, number * channels + start + width)
            return linear_rows(t, t.x, "qkv", rows, bias=bias, factor=factor)

        q = reshape(t, projected(0, scale), (0, heads, width // heads, 1, places))
        k, v = (
            reshape(
                t,
                unfolded(t, projected(number), width, kernel, dilation=dilation, pads=border),
                (0, heads, width // heads, kernel**2, places),
            )
            for number in (1, 2)
        )
        return attend_to_neighbours(t, q, k, v)
