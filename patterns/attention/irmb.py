"""iRMB: attention within windows on a widened map, a depthwise convolution of its result, and a shortcut.

Zhang et al., "Rethinking Mobile Block for Efficient Attention-based Models", ICCV 2023, arXiv:2301.01146.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from .activations import silu
from .catalogue import CatalogueBlock
from .layers import batch_norm, conv_bn, linear_rows
from .transformer import attend, cut_to, pad_below, reshape, transpose
from .widths import require_divisor, require_odd, require_static


class IRMB(CatalogueBlock):
    """Windows become entries of the batch, and q, k and v come out of convolutions of them, channels first."""

    name = "irmb"
    title = "Inverted Residual Mobile Block (EMO)"
    demand = 10
    paper = "Rethinking Mobile Block for Efficient Attention-based Models, ICCV 2023, arXiv:2301.01146"
    reference = "zhangzjn/EMO, model/emo.py"
    formula = (
        "y = x + proj(a + silu(BN(dw(a)))), a = relu(v(z)) softmax(q^T k / sqrt(d))^T within windows, [q, k] = qk(z), "
        "z = BN(x)"
    )
    untrained = "its input plus a learned term; about the scale of its input"
    identity_learns = True
    settings = (
        Setting("window", int, 7, "side of a window; a map that it does not divide is padded", minimum=1),
        Setting("heads", int, None, "heads; C over head_dim, at least 1, where not given", minimum=1),
        Setting(
            "head_dim",
            int,
            32,
            "channels of a head's queries: 16 to 40 in EMO, 64, 16 or 8 in YOLO collections",
            minimum=1,
            later=True,
        ),
        Setting("exp_ratio", float, 4.0, "width of the values over C", above=0),
        Setting("hidden", int, None, "the same in channels; overrules exp_ratio", minimum=1),
        Setting("dw_kernel", int, 3, "side of the depthwise convolution: 5 in the later stages of EMO", minimum=1),
        Setting("qkv_bias", bool, True, "whether q, k and v have biases, as in EMO"),
        Setting(
            "activation",
            str,
            "relu",
            "of the values; silu in some YOLO collections",
            choices=("relu", "silu"),
            later=True,
        ),
        Setting("proj_bias", bool, False, "whether the last convolution has a bias, as in those", later=True),
        Setting("bn_eps", float, 1e-6, "epsilon of the BatchNorms: 1e-6 in EMO", above=0),
    )

    aliases = (
        (r"qk\.(weight|bias)", r"qk.conv.\1"),
        (r"v\.0\.(weight|bias)", r"v.conv.\1"),
        (r"conv_local\.bn\.(\w+)", r"conv_local.norm.\1"),
        (r"proj\.(weight|bias)", r"proj.conv.\1"),
    )

    def _heads(self, feature: FeatureMap) -> int:
        return self.integer("heads") or max(feature.channels // self.integer("head_dim"), 1)

    def default_hidden(self, feature: FeatureMap) -> int:
        return int(feature.channels * self.number("exp_ratio"))

    def check(self, feature: FeatureMap) -> None:
        heads, hidden = self._heads(feature), self.hidden(feature)
        require_static(feature, "irmb cuts the map into windows")
        require_divisor(feature, heads, "heads")
        require_odd(self, "dw_kernel", self.integer("dw_kernel"))
        if hidden < 1 or hidden % heads:
            raise BlockError(
                f"irmb has {hidden} channels of values at {feature.label}, which {heads} heads do not divide"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden, kernel = feature.channels, self.hidden(feature), self.integer("dw_kernel")
        qkv = {"qk.conv": (2 * channels, channels, 1, 1), "v.conv": (hidden, channels, 1, 1)}
        local = {"conv_local.conv": (hidden, 1, kernel, kernel)}
        shapes = bn_shapes("norm", channels) | layer_shapes(qkv, bias=self.flag("qkv_bias"))
        shapes |= layer_shapes(local, bias=False) | bn_shapes("conv_local.norm", hidden)
        return shapes | layer_shapes({"proj.conv": (channels, hidden, 1, 1)}, bias=self.flag("proj_bias"))

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        last = [key for key in self.parameters(feature) if key.startswith("proj.")]
        return self.with_constants(feature, dict.fromkeys(last, 0.0))

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        if "v.conv.weight" in shapes:
            found |= {"hidden": shapes["v.conv.weight"][0], "qkv_bias": "v.conv.bias" in shapes}
            found |= {"proj_bias": "proj.conv.bias" in shapes}
        if len(shapes.get("conv_local.conv.weight", ())) == 4:
            found["dw_kernel"] = shapes["conv_local.conv.weight"][3]
        return found

    def emit(self, t: Template, lowering: str) -> Variable:
        (height, width), side = t.feature.size, self.integer("window")
        z = pad_below(t, batch_norm(t, t.x, "norm", self.number("bn_eps")), -height % side, -width % side)
        rows, columns = -(-height // side), -(-width // side)
        z = transpose(t, reshape(t, z, (0, t.feature.channels, side, rows, side, columns)), (0, 3, 5, 1, 2, 4))
        a = self._attended(t, reshape(t, z, (-1, t.feature.channels, side, side)))
        hidden = self.hidden(t.feature)
        a = transpose(t, reshape(t, a, (-1, rows, columns, hidden, side, side)), (0, 3, 4, 1, 5, 2))
        a = reshape(t, a, (0, hidden, side * rows, side * columns))
        a = cut_to(t, a, (side * rows, side * columns), (height, width))
        border, eps = self.integer("dw_kernel") // 2, self.number("bn_eps")
        local = conv_bn(t, a, "conv_local.conv", "conv_local.norm", eps, pads=[border] * 4, group=hidden)
        bias = [t.weight("proj.conv.bias")] if self.flag("proj_bias") else []
        return t.add(t.x, t.conv(t.add(a, silu(t, local)), t.weight("proj.conv.weight"), *bias))

    def _attended(self, t: Template, z: Variable) -> Variable:
        """[windows, C, w, w] -> [windows, heads, F / heads, w^2]."""
        channels, heads, positions = t.feature.channels, self._heads(t.feature), self.integer("window") ** 2
        width = channels // heads

        def projected(layer: str, rows: range, factor: float = 1.0) -> Variable:
            return linear_rows(t, z, layer, rows, bias=self.flag("qkv_bias"), factor=factor)

        hidden = self.hidden(t.feature)
        q = projected("qk.conv", range(channels), width**-0.5)
        k = projected("qk.conv", range(channels, 2 * channels))
        v = projected("v.conv", range(hidden))
        v = t.relu(v) if self.text("activation") == "relu" else silu(t, v)
        return attend(t, *(reshape(t, x, (0, heads, -1, positions)) for x in (q, k, v)))

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"heads": self._heads(feature)}
