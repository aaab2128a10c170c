"""CPCA: a channel gate, then a multi-scale depthwise map that weighs what passed it.

Huang et al., "Channel Prior Convolutional Attention for Medical Image Segmentation", arXiv:2306.05196.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsurgery.blocks import FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from ..forms import CPCA_STRIPS
from .activations import gelu
from .catalogue import CatalogueBlock
from .layers import branched, depthwise, layer_weights


class CPCA(CatalogueBlock):
    """One 1x1 convolution, ``conv``, is used three times, and stands in the model once."""

    name = "cpca"
    title = "Channel Prior Convolutional Attention"
    demand = 42
    paper = "Channel Prior Convolutional Attention for Medical Image Segmentation, arXiv:2306.05196"
    reference = "Cuthbert-Huang/CPCANet, CPCANet.py, class RepBlock"
    formula = (
        "u = gelu(conv(x)), v = u * (sigmoid(mlp(mean u)) + sigmoid(mlp(max u))), s = dconv5_5(v), "
        "y = conv(conv(s + sum over k = 7, 11, 21 of dconv{k}_1(dconv1_{k}(s))) * v)"
    )
    untrained = "about a tenth of its input's norm, in other values: it is not a gate of its input"
    settings = (
        Setting("reduction", int, 4, "channels over hidden channels of the channel attention", minimum=1),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1),
    )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self.hidden(feature)
        layers = {
            "ca.fc1": (hidden, channels, 1, 1),
            "ca.fc2": (channels, hidden, 1, 1),
            "dconv5_5": (channels, 1, 5, 5),
        }
        for k in CPCA_STRIPS:
            layers |= {f"dconv1_{k}": (channels, 1, 1, k), f"dconv{k}_1": (channels, 1, k, 1)}
        return layer_shapes(layers | {"conv": (channels, channels, 1, 1)})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        return {"hidden": shapes["ca.fc1.weight"][0]} if "ca.fc1.weight" in shapes else {}

    def emit(self, t: Template, lowering: str) -> Variable:
        shared = {layer: layer_weights(t, layer) for layer in ("conv", "ca.fc1", "ca.fc2")}
        u = gelu(t, t.conv(t.x, *shared["conv"]))
        gates = []
        for pooled in (t.mean_hw(u), t.reduce("ReduceMax", u, (2, 3))):
            gates.append(t.sigmoid(t.conv(t.relu(t.conv(pooled, *shared["ca.fc1"])), *shared["ca.fc2"])))
        v = t.mul(u, t.add(*gates))
        total = branched(t, depthwise(t, v, "dconv5_5"), [(f"dconv1_{k}", f"dconv{k}_1") for k in CPCA_STRIPS])
        return t.conv(t.mul(t.conv(total, *shared["conv"]), v), *shared["conv"])
