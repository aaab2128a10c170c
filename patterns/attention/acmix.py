"""ACmix: attention to neighbours and a convolution, added, out of the same three projections.

Pan et al., "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv:2111.14556.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from .catalogue import CatalogueBlock
from .tiles import Tiles
from .transformer import attention, in_heads, like_map, transpose
from .widths import require_divisor, require_odd, require_static

_SIDE = 3
"""of the convolution"""


class ACmix(CatalogueBlock):
    """What is the same for all neighbours of a position is gone from the logits: its own place, and the biases of the
    keys and of the places. The three projections and what mixes them for the convolution are one 1x1 convolution.
    """

    name = "acmix"
    title = "ACmix"
    demand = 28
    paper = "On the Integration of Self-Attention and Convolution, CVPR 2022, arXiv:2111.14556"
    reference = "LeapLabTHU/ACmix, ResNet/test_bottleneck.py"
    formula = (
        "y = rate1 a + rate2 dep_conv(fc(q, k, v)), a_i = sum_j softmax_j(q_i . (k_j + p_i - p_j) / sqrt(d)) v_j for "
        "each head over the kernel^2 neighbours j of i, reflected at the border; q, k, v = conv1(x), conv2(x), "
        "conv3(x), p = conv_p(coordinates)"
    )
    untrained = "two learned terms in its place, of about half of its scale: there is no shortcut"
    settings = (
        Setting("heads", int, 4, "heads", minimum=1),
        Setting("kernel", int, 7, "side of the neighbourhood of the attention", minimum=1),
        Setting("conv_bias", bool, False, "whether the convolution has a bias; the authors' code loses it"),
    )

    def check(self, feature: FeatureMap) -> None:
        require_static(feature, "acmix codes the position on the map")
        require_divisor(feature, self.integer("heads"), "heads")
        require_odd(self, "kernel", self.integer("kernel"))
        border = self.integer("kernel") // 2
        if border >= min(feature.size):
            raise BlockError(
                f"acmix reflects {border} positions at the border of the map, and {feature.label} is "
                f"{feature.height} x {feature.width}; set kernel to at most {2 * min(feature.size) - 1}"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, heads = feature.channels, self.integer("heads")
        square = (channels, channels, 1, 1)
        layers = {"conv1": square, "conv2": square, "conv3": square, "conv_p": (channels // heads, 2, 1, 1)}
        return {
            **layer_shapes(layers),
            **layer_shapes({"fc": (_SIDE**2, 3 * heads, 1, 1)}, bias=False),
            **layer_shapes({"dep_conv": (channels, _SIDE**2, _SIDE, _SIDE)}, bias=self.flag("conv_bias")),
            "rate1": (1,),
            "rate2": (1,),
        }

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shapes = self.parameters(feature)
        values = torch_default({key: shape for key, shape in shapes.items() if "rate" not in key}, rng)
        shifts = np.eye(_SIDE**2, dtype=np.float32).reshape(-1, _SIDE, _SIDE)
        values["dep_conv.weight"] = np.broadcast_to(shifts, shapes["dep_conv.weight"]).copy()
        values |= {key: np.full(shapes[key], 0.5, np.float32) for key in ("rate1", "rate2")}
        if self.flag("conv_bias"):
            values["dep_conv.bias"] = np.zeros(shapes["dep_conv.bias"], np.float32)
        return values

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        raise self.no_identity("has no shortcut and cannot leave its input as it is")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {"conv_bias": "dep_conv.bias" in shapes} if "dep_conv.weight" in shapes else {}
        return found | ({"heads": shapes["fc.weight"][1] // 3} if len(shapes.get("fc.weight", ())) > 1 else {})

    def emit(self, t: Template, lowering: str) -> Variable:
        one = (1, 1, 1, 1)
        attended = t.mul(self._attended(t), t.weight("rate1", one))
        return t.add(attended, t.mul(self._convolved(t), t.weight("rate2", one)))

    def _attended(self, t: Template) -> Variable:
        channels, heads = t.feature.channels, self.integer("heads")
        width, tiles = channels // heads, Tiles.of(t.feature.size, self.integer("kernel"))
        scale = width**-0.5
        q = t.conv(t.x, t.weight("conv1.weight", factor=scale), t.weight("conv1.bias", factor=scale))
        k, v = t.conv(t.x, t.weight("conv2.weight")), t.conv(t.x, t.weight("conv3.weight"), t.weight("conv3.bias"))
        q, k, v = (in_heads(t, each, heads, width) for each in (q, k, v))
        k = t.sub(k, t.constant(self._places(t), "places"))
        q, k, v = (transpose(t, each, (0, 1, 3, 2)) for each in (q, k, v))
        k = transpose(t, tiles.surroundings(t, k), (0, 1, 2, 4, 3))
        weights = attention(t, tiles.positions(t, q), k, rank=5, bias=tiles.outside(t))
        o = tiles.joined(t, t.op("MatMul", weights, tiles.surroundings(t, v)))
        return like_map(t, transpose(t, o, (0, 1, 3, 2)), channels)

    def _places(self, t: Template) -> Array:
        """p without its bias, [1, 1, d, H * W]."""
        down, right = (np.linspace(-1, 1, side) for side in t.feature.size)
        places = np.stack(np.meshgrid(right, down)).reshape(2, -1)
        found: Array = (t.values("conv_p.weight")[:, :, 0, 0] @ places)[None, None]
        return found

    def _convolved(self, t: Template) -> Variable:
        """What fc makes of q, k and v, folded with these, and the convolution of it."""
        channels, heads = t.feature.channels, self.integer("heads")
        width = channels // heads
        shares = t.values("fc.weight").reshape(_SIDE**2, 3, heads)
        convs = ("conv1", "conv2", "conv3")
        layers = np.stack([t.values(f"{conv}.weight").reshape(heads, width, channels) for conv in convs])
        biases = np.stack([t.values(f"{conv}.bias").reshape(heads, width) for conv in convs])
        weight = np.einsum("iph,phdc->dic", shares, layers).reshape(-1, channels, 1, 1)
        bias = np.einsum("iph,phd->di", shares, biases).reshape(-1)
        f = t.conv(t.x, t.constant(weight, "mixed.weight"), t.constant(bias, "mixed.bias"))
        own = [t.weight("dep_conv.weight"), *([t.weight("dep_conv.bias")] if self.flag("conv_bias") else [])]
        return t.conv(f, *own, pads=[1] * 4, group=width)
