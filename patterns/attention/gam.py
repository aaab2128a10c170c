"""GAM: a per-position network over the channels, then a 7x7 network over the positions.

Liu et al., "Global Attention Mechanism: Retain Information to Enhance Channel-Spatial Interactions", arXiv:2112.05561.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks.block import SATURATED, Array, Block, Setting
from graphsurgery.blocks.initial_weights import bn_shapes, bn_values
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.patterns.attention import shuffling
from graphsurgery.patterns.attention.initial import torch_default
from graphsurgery.patterns.attention.parts import conv_bn, linear
from graphsurgery.template.template import Template

from .hidden import require_hidden

if TYPE_CHECKING:
    import torch

_SHUFFLED = 4
_MANY = 10e6


class GlobalAttention(Block):
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
    settings = (
        Setting("reduction", int, 4, "channels over hidden channels; in yolo-grouped also the groups", minimum=1),
        Setting("bn_eps", float, 1e-5, "epsilon of the BatchNorms; models trained with Ultralytics have 1e-3", above=0),
    )

    @property
    def _grouped(self) -> bool:
        return self.variant == "yolo-grouped"

    @property
    def _reduction(self) -> int:
        return int(self.values["reduction"] or 1)

    def _hidden(self, feature: FeatureMap) -> int:
        return feature.channels // self._reduction

    def check(self, feature: FeatureMap) -> None:
        channels, hidden = feature.channels, self._hidden(feature)
        require_hidden(hidden, self._reduction, feature)
        if self._grouped and (channels % self._reduction or hidden % self._reduction or channels % _SHUFFLED):
            raise BlockError(
                f"{self.spelled} splits {channels} and {hidden} channels into {self._reduction} groups and shuffles "
                f"{_SHUFFLED}; {feature.label} needs a multiple of {np.lcm(self._reduction**2, _SHUFFLED)} channels"
            )

    def warnings(self, feature: FeatureMap) -> list[str]:
        count = sum(prod(shape) for shape in self.parameters(feature).values())
        if count < _MANY:
            return []
        hint = "" if self._grouped else "; gam[yolo-grouped] has a quarter of it"
        return [f"gam has {count / 1e6:.1f} million parameters at {feature.channels} channels{hint}"]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self._hidden(feature)
        groups = self._reduction if self._grouped else 1
        shapes: dict[str, tuple[int, ...]] = {}
        sizes = (("0", hidden, channels), ("2", channels, hidden)), (("0", hidden, channels), ("3", channels, hidden))
        for layer, outputs, inputs in sizes[0]:
            shapes[f"channel_attention.{layer}.weight"] = (outputs, inputs)
            shapes[f"channel_attention.{layer}.bias"] = (outputs,)
        for layer, outputs, inputs in sizes[1]:
            shapes[f"spatial_attention.{layer}.weight"] = (outputs, inputs // groups, 7, 7)
            shapes[f"spatial_attention.{layer}.bias"] = (outputs,)
            shapes |= bn_shapes(f"spatial_attention.{int(layer) + 1}", outputs)
        return shapes

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return torch_default(self.parameters(feature), rng)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        values = self.initial(feature, np.random.default_rng(0))
        last = "channel_attention.2"
        values[f"{last}.weight"] = np.zeros_like(values[f"{last}.weight"])
        gate = SATURATED if self.variant == "cv-attention" else 1.0
        values[f"{last}.bias"] = np.full_like(values[f"{last}.bias"], gate)
        return values | bn_values("spatial_attention.4", feature.channels, 0.0, SATURATED)

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        first = shapes.get("channel_attention.0.weight", ())
        return {"reduction": first[1] // first[0]} if len(first) > 1 else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return shuffling.lowerings(feature) if self._grouped else ("default",)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return shuffling.choose(t, lowerings)

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        gate = linear(t, t.relu(linear(t, t.x, "channel_attention.0")), "channel_attention.2")
        z = t.mul(t.x, t.sigmoid(gate) if self.variant == "cv-attention" else gate)
        eps, groups = float(self.values["bn_eps"] or 0), self._reduction if self._grouped else 1
        spatial = z
        for layer in (0, 3):
            conv, bn = f"spatial_attention.{layer}", f"spatial_attention.{layer + 1}"
            spatial = conv_bn(t, spatial, conv, bn, eps, pads=[3, 3, 3, 3], group=groups)
            spatial = t.relu(spatial) if layer == 0 else t.sigmoid(spatial)
        return t.mul(z, shuffling.shuffle(t, spatial, _SHUFFLED, lowering) if self._grouped else spatial)

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.gam import GlobalAttention as Module

        eps = float(self.values["bn_eps"] or 0)
        return Module(feature.channels, str(self.variant), self._reduction, bn_eps=eps)
