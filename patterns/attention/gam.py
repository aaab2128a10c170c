"""GAM: a per-position network over the channels, then a 7x7 network over the positions.

Liu et al., "Global Attention Mechanism: Retain Information to Enhance Channel-Spatial Interactions", arXiv:2112.05561.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from ..forms import GAM_SHUFFLE
from . import shuffling
from .catalogue import CatalogueBlock, bn_eps
from .layers import conv_bn, linear


class GlobalAttention(CatalogueBlock):
    """The linear layers of the channel part are 1x1 convolutions, so that nothing is transposed."""

    name = "gam"
    title = "Global Attention Mechanism"
    demand = 9
    paper = "Global Attention Mechanism: Retain Information to Enhance Channel-Spatial Interactions, arXiv:2112.05561"
    reference = "no code by the authors is known: the listing that blogs and forks share (channel part without sigmoid)"
    formula = "y = z * sigmoid(BN(conv7x7(relu(BN(conv7x7(z)))))), z = x * mlp(x), or z = x * sigmoid(mlp(x))"
    untrained = "scales its input to about 0.08 with random signs; with the channel sigmoid to about a quarter"
    variants: ClassVar[dict[str, str]] = {
        "listing": "the listing that most copies follow: no sigmoid after the channel part",
        "cv-attention": "as in cv-attention, and the paper's figure: a sigmoid after the channel part",
        "yolo-grouped": "GAM_Attention of YOLO forks: grouped 7x7 convolutions, the spatial gate's channels shuffled",
    }
    identity_learns = ("listing", "yolo-grouped")
    settings = (
        Setting("reduction", int, 4, "channels over hidden channels; in yolo-grouped also the groups", minimum=1),
        bn_eps(),
        Setting(
            "group",
            bool,
            True,
            "whether the 7x7 convolutions are grouped; the shuffle stays",
            variants=("yolo-grouped",),
            later=True,
        ),
    )

    @property
    def _shuffles(self) -> bool:
        return self.variant == "yolo-grouped"

    @property
    def _groups(self) -> int:
        return self.integer("reduction") if self.flag("group") else 1

    @property
    def _sigmoid(self) -> bool:
        """Whether the channel part ends in one."""
        return self.variant == "cv-attention"

    def check(self, feature: FeatureMap) -> None:
        channels, hidden, reduction = feature.channels, self.hidden(feature), self.integer("reduction")
        super().check(feature)
        if self._shuffles and not self.flag("group") and channels % GAM_SHUFFLE:
            raise BlockError(
                f"{self.spelled} shuffles {GAM_SHUFFLE} groups, and {feature.label} has {channels} channels"
            )
        if self.flag("group") and (channels % reduction or hidden % reduction or channels % GAM_SHUFFLE):
            raise BlockError(
                f"{self.spelled} splits {channels} and {hidden} channels into {reduction} groups and shuffles "
                f"{GAM_SHUFFLE}; {feature.label} needs a multiple of {np.lcm(reduction**2, GAM_SHUFFLE)} channels"
            )

    def warnings(self, feature: FeatureMap) -> list[str]:
        return self.many_parameters(
            feature, "gam", "" if self.flag("group") else "; gam[yolo-grouped] has a quarter of it"
        )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self.hidden(feature)
        groups = self._groups
        shapes = layer_shapes({"channel_attention.0": (hidden, channels), "channel_attention.2": (channels, hidden)})
        for layer, outputs, inputs in ((0, hidden, channels), (3, channels, hidden)):
            shapes |= layer_shapes({f"spatial_attention.{layer}": (outputs, inputs // groups, 7, 7)})
            shapes |= bn_shapes(f"spatial_attention.{layer + 1}", outputs)
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        gate = SATURATED if self._sigmoid else 1.0
        return self.with_biases(feature, {"channel_attention.2": gate, "spatial_attention.4": SATURATED})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        first = shapes.get("channel_attention.0.weight", ())
        if len(first) < 2:
            return {}
        found: dict[str, object] = {"reduction": first[1] // first[0]}
        inputs = shapes.get("spatial_attention.0.weight", ())[1:2]
        if self._shuffles and inputs:
            found["group"] = inputs != first[1:2]
        return found

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return shuffling.lowerings(feature) if self._shuffles else ("default",)

    def emit(self, t: Template, lowering: str) -> Variable:
        gate = linear(t, t.relu(linear(t, t.x, "channel_attention.0")), "channel_attention.2")
        z = t.mul(t.x, t.sigmoid(gate) if self._sigmoid else gate)
        eps = self.number("bn_eps")
        spatial = z
        for layer in (0, 3):
            conv, bn = f"spatial_attention.{layer}", f"spatial_attention.{layer + 1}"
            spatial = conv_bn(t, spatial, conv, bn, eps, pads=[3, 3, 3, 3], group=self._groups)
            spatial = t.relu(spatial) if layer == 0 else t.sigmoid(spatial)
        return t.mul(z, shuffling.shuffle(t, spatial, GAM_SHUFFLE, lowering) if self._shuffles else spatial)
