"""Double attention of A2-Nets: gather features by attention over the positions, hand them out again by another one.

Chen et al., "A2-Nets: Double Attention Networks", NeurIPS 2018, arXiv:1810.11579.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsurgery.blocks import BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from .catalogue import CatalogueBlock
from .layers import linear
from .transformer import flat, like_map, softmax, transpose


class DoubleAttention(CatalogueBlock):
    """The two 1x1 convolutions around the attention are applied to the few gathered features, not to the map:

    R (A x + a) B^T V + r = R (A (x B^T)) V + R a + r, since the columns of B^T and of V add up to 1. Without a
    reconstruction there is no R and no r.
    """

    name = "a2"
    title = "Double Attention (A2-Net)"
    demand = 44
    paper = "A2-Nets: Double Attention Networks, NeurIPS 2018, arXiv:1810.11579"
    reference = (
        "the paper's equations 4 to 6; the keys are those of xmu-xiaoma666/External-Attention-pytorch, whose "
        "softmax runs over the batch by mistake"
    )
    formula = (
        "y = conv_reconstruct(convA(x) softmax_positions(convB(x))^T softmax_maps(convV(x))); "
        "reconstruct=false: without the last convolution"
    )
    untrained = "nearly the same for every position, and smaller than its input: there is no shortcut inside"
    remarks = (
        "External-Attention and cv-attention call softmax without an axis, which is the batch there: with one image "
        "all attention is 1, and their weights are those of another function",
    )
    settings = (
        Setting("c_m", int, 128, "channels that are gathered", minimum=1),
        Setting("c_n", int, 128, "attention maps", minimum=1),
        Setting("reconstruct", bool, True, "the last convolution; without it c_m has to be C", later=True),
    )

    @property
    def _widths(self) -> tuple[int, int]:
        return self.integer("c_m"), self.integer("c_n")

    def check(self, feature: FeatureMap) -> None:
        c_m = self.integer("c_m")
        if not self.flag("reconstruct") and c_m != feature.channels:
            raise BlockError(
                f"without reconstruct a2 gives c_m={c_m} channels, and {feature.label} has {feature.channels}: "
                f"set c_m to {feature.channels}"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, (c_m, c_n) = feature.channels, self._widths
        outputs = {"convA": c_m, "convB": c_n, "convV": c_n}
        layers = {layer: (count, channels, 1, 1) for layer, count in outputs.items()}
        if self.flag("reconstruct"):
            layers["conv_reconstruct"] = (channels, c_m, 1, 1)
        return layer_shapes(layers)

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if not {"convA.weight", "convB.weight"} <= set(shapes):
            return {}
        widths = {"c_m": shapes["convA.weight"][0], "c_n": shapes["convB.weight"][0]}
        return {**widths, "reconstruct": "conv_reconstruct.weight" in shapes}

    def emit(self, t: Template, lowering: str) -> Variable:
        channels, (c_m, c_n) = t.feature.channels, self._widths
        x = flat(t, t.x)
        # the bias of convB is the same at every position, and the softmax does not see it
        gather = softmax(t, flat(t, linear(t, t.x, "convB", bias=False), c_n), 3)
        features = t.op("MatMul", x, transpose(t, gather, (0, 2, 1)))
        features = t.op("MatMul", t.weight("convA.weight", (1, c_m, channels)), features)
        bias = t.values("convA.bias")
        if self.flag("reconstruct"):
            features = t.op("MatMul", t.weight("conv_reconstruct.weight", (1, channels, c_m)), features)
            bias = t.values("conv_reconstruct.weight").reshape(channels, c_m) @ bias
            bias = bias + t.values("conv_reconstruct.bias")
        # as a product with x turned, so that the axis of the softmax is the last one
        maps = t.op("MatMul", transpose(t, x, (0, 2, 1)), t.rows("convV.weight", range(c_n), transposed=True))
        maps = t.add(maps, t.weight("convV.bias", (1, c_n) if t.since(2) else (1, 1, c_n)))
        distribute = transpose(t, softmax(t, maps, 3), (0, 2, 1))
        y = like_map(t, t.op("MatMul", features, distribute), channels)
        name = "conv_reconstruct.bias" if self.flag("reconstruct") else "convA.bias"
        return t.add(y, t.constant(bias.reshape(1, -1, 1, 1), name))
