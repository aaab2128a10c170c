"""CloAttention: local heads by depthwise convolutions and a gate with tanh, global heads by attention to means.

Fan et al., "Rethinking Local Perception in Lightweight Vision Transformer", arXiv:2303.17803.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from .activations import silu
from .catalogue import CatalogueBlock
from .layers import linear, linear_rows
from .transformer import attend, concat, in_heads, like_map, reshape
from .widths import require_divisor, require_odd


class CloAttention(CatalogueBlock):
    """q, k and v come out of convolutions of their own, local ones too: a depthwise convolution is one for each."""

    name = "clo"
    title = "CloAttention (CloFormer)"
    demand = 26
    quadratic = True
    paper = "Rethinking Local Perception in Lightweight Vision Transformer, arXiv:2303.17803"
    reference = "z1069614715/objectdetection_script, cv-attention/CloAttention.py, as in qhfan/CloFormer"
    formula = (
        "y = proj([a, b]); local heads a = tanh(f2(swish(f1(q * k))) / sqrt(d)) * v, [q, k, v] = dw(qkv(x)); "
        "global heads b = v softmax(q^T k / sqrt(d))^T, k and v of means over windows"
    )
    untrained = "a learned term in its place, of about a tenth of its scale: there is no shortcut"
    settings = (
        Setting("heads", int, 8, "heads, local and global ones", minimum=2),
        Setting("local_heads", int, 4, "how many of them are local", minimum=1),
        Setting("kernel", int, 5, "side of the depthwise convolution", minimum=1),
        Setting("window", int, 4, "side of the windows that global heads have means of", minimum=1),
        Setting("qkv_bias", bool, True, "whether q, k, v and the projection have biases"),
    )

    def _widths(self, feature: FeatureMap) -> tuple[int, int]:
        """Channels of the local and of the global heads."""
        near = feature.channels // self.integer("heads") * self.integer("local_heads")
        return near, feature.channels - near

    def check(self, feature: FeatureMap) -> None:
        heads, local, window = (self.integer(name) for name in ("heads", "local_heads", "window"))
        require_divisor(feature, heads, "heads")
        require_odd(self, "kernel", self.integer("kernel"))
        if local >= heads:
            raise BlockError(f"clo has fewer local heads than heads, not {local} of {heads}", option="settings")
        if any(side is not None and side < window for side in (feature.height, feature.width)):
            raise BlockError(f"{feature.label} is smaller than the windows of {window} that clo has means of")

    def warnings(self, feature: FeatureMap) -> list[str]:
        window = self.integer("window")
        if all(side is None or side % window == 0 for side in (feature.height, feature.width)):
            return []
        rest = "global heads do not see the rest below and to the right"
        return [f"windows of {window} do not divide {feature.label}: {rest}"]

    def scores(self, height: int, width: int) -> tuple[int, int]:
        window = self.integer("window")
        return height * width, (height // window) * (width // window)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, (near, far), side = feature.channels, self._widths(feature), self.integer("kernel")
        bias = self.flag("qkv_bias")
        shapes = layer_shapes({"qkvs.0": (3 * near, channels, 1, 1)}, bias=bias)
        inner = {f"act_blocks.0.act_block.{number}": (near, near, 1, 1) for number in (0, 2)}
        shapes |= layer_shapes({"convs.0": (3 * near, 1, side, side), **inner})
        far_layers = {"global_q": (far, channels, 1, 1), "global_kv": (2 * far, channels, 1, 1)}
        return shapes | layer_shapes({**far_layers, "proj": (channels, channels, 1, 1)}, bias=bias)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        raise self.no_identity("has no shortcut and cannot leave its input as it is")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {"qkv_bias": "proj.bias" in shapes} if "proj.weight" in shapes else {}
        return found | ({"kernel": shapes["convs.0.weight"][3]} if len(shapes.get("convs.0.weight", ())) == 4 else {})

    def emit(self, t: Template, lowering: str) -> Variable:
        joined = concat(t, [self._local(t), self._global(t)], 1)
        return linear(t, joined, "proj", bias=self.flag("qkv_bias"))

    def _part(self, t: Template, x: Variable, layer: str, rows: range, factor: float = 1.0) -> Variable:
        """Some output channels of a 1x1 convolution, times a factor."""
        return linear_rows(t, x, layer, rows, bias=self.flag("qkv_bias"), factor=factor)

    def _local(self, t: Template) -> Variable:
        near, _ = self._widths(t.feature)
        border = [self.integer("kernel") // 2] * 4
        parts = []
        for number in range(3):
            rows = range(number * near, (number + 1) * near)
            weight = t.rows("convs.0.weight", rows)
            bias = t.constant(t.values("convs.0.bias")[list(rows)], "convs.0.bias")
            parts.append(t.conv(self._part(t, t.x, "qkvs.0", rows), weight, bias, pads=border, group=near))
        q, k, v = parts
        inner = silu(t, linear(t, t.mul(q, k), "act_blocks.0.act_block.0"))
        scale = (t.feature.channels // self.integer("heads")) ** -0.5
        key = "act_blocks.0.act_block.2"
        gate = t.conv(inner, t.weight(f"{key}.weight", factor=scale), t.weight(f"{key}.bias", factor=scale))
        return t.mul(t.op("Tanh", gate), v)

    def _global(self, t: Template) -> Variable:
        _, far = self._widths(t.feature)
        heads, window = self.integer("heads") - self.integer("local_heads"), self.integer("window")
        width = far // heads
        q = in_heads(t, self._part(t, t.x, "global_q", range(far), width**-0.5), heads, width)
        means: Variable = t.x
        if window > 1:
            means = t.op("AveragePool", t.x, kernel_shape=[window] * 2, strides=[window] * 2)
        keys, values = (self._part(t, means, "global_kv", range(start, start + far)) for start in (0, far))
        k, v = (reshape(t, part, (0, heads, width, -1)) for part in (keys, values))
        return like_map(t, attend(t, q, k, v), far)
