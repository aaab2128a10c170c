"""ParNet attention: a 1x1 and a 3x3 convolution and a gated copy of the map, added up, with a SiLU behind.

Goyal et al., "Non-deep Networks", NeurIPS 2022, arXiv:2110.07641.
"""

from __future__ import annotations

from graphsurgery.blocks import Array, FeatureMap, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from .activations import silu
from .catalogue import CatalogueBlock, bn_eps
from .layers import conv_bn, linear


class ParNetAttention(CatalogueBlock):
    """The BatchNorms are folded into the convolutions, which stay two: each keeps its trained weights."""

    name = "parnet"
    title = "ParNet Attention"
    demand = 47
    paper = "Non-deep Networks, NeurIPS 2022, arXiv:2110.07641"
    reference = "xmu-xiaoma666/External-Attention-pytorch, model/attention/ParNetAttention.py"
    formula = "y = silu(BN(conv1x1(x)) + BN(conv3x3(x)) + x * sigmoid(conv(mean over H, W of x)))"
    untrained = "about half its input plus two convolutions of it, through a SiLU"
    settings = (bn_eps(),)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels = feature.channels
        shapes = layer_shapes({"sse.1": (channels, channels, 1, 1)})
        for branch, side in (("conv1x1", 1), ("conv3x3", 3)):
            shapes |= layer_shapes({f"{branch}.0": (channels, channels, side, side)})
            shapes |= bn_shapes(f"{branch}.1", channels)
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        raise self.no_identity("ends in a SiLU and cannot leave its input as it is")

    def emit(self, t: Template, lowering: str) -> Variable:
        eps = self.number("bn_eps")
        gate = t.sigmoid(linear(t, t.mean_hw(t.x), "sse.1"))
        near = conv_bn(t, t.x, "conv1x1.0", "conv1x1.1", eps)
        wide = conv_bn(t, t.x, "conv3x3.0", "conv3x3.1", eps, pads=[1] * 4)
        return silu(t, t.add(t.add(near, wide), t.mul(t.x, gate)))
