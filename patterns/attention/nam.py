"""NAM: the BatchNorm scale, normalised over the channels, as the weight of a per-position gate.

Liu et al., "NAM: Normalization-based Attention Module", arXiv:2111.12419.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks.block import SATURATED, Array, Block, Setting
from graphsurgery.blocks.initial_weights import bn_shapes, bn_values
from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template.template import Template
from graphsurgery.template.weight_folding import affine

if TYPE_CHECKING:
    import torch

_CHANNEL, _SPATIAL = "Channel_Att.bn2", "Spatial_Att.bn2"
# Any positive scale gives the weights 1/C; a small one keeps the gate at 1 for inputs down to -3000 * C.
_IDENTITY_SCALE = 1e-3


class NAM(Block):
    """y = x * sigmoid(w * BN(x)) with w = |gamma| / sum |gamma|: evaluated, a per-channel affine, a sigmoid, a
    product.
    """

    name = "nam"
    title = "Normalization-based Attention"
    demand = 4
    paper = "NAM: Normalization-based Attention Module, arXiv:2111.12419"
    reference = "Christian-lyc/NAM, MODELS/attention.py (channel attention only)"
    formula = "y = x * sigmoid(|gamma_c| / sum_k |gamma_k| * BatchNorm(x))"
    untrained = "halves its input"
    variants: ClassVar[dict[str, str]] = {
        "channel": "the official code: channel attention only",
        "channel+spatial": "as in forks: then the same over the H*W positions (fixes height and width)",
    }
    settings = (
        Setting("bn_eps", float, 1e-5, "epsilon of the BatchNorm; models trained with Ultralytics have 1e-3", above=0),
    )
    aliases = (
        (r"(?:channel_att\.|ca\.)?bn2?\.(\w+)", rf"{_CHANNEL}.\1"),
        (r"(?:spatial_att|sa)\.bn2?\.(\w+)", rf"{_SPATIAL}.\1"),
    )

    @property
    def _spatial(self) -> bool:
        return self.variant == "channel+spatial"

    def check(self, feature: FeatureMap) -> None:
        if self._spatial and not feature.static:
            raise BlockError(
                f"{self.spelled} has one weight per position, and {feature.label} has a dynamic height or width"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        shapes = bn_shapes(_CHANNEL, feature.channels)
        return shapes | bn_shapes(_SPATIAL, feature.area) if self._spatial else shapes

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        values = bn_values(_CHANNEL, feature.channels)
        return values | bn_values(_SPATIAL, feature.area) if self._spatial else values

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        values = bn_values(_CHANNEL, feature.channels, _IDENTITY_SCALE, SATURATED * feature.channels)
        if self._spatial:
            values |= bn_values(_SPATIAL, feature.area, _IDENTITY_SCALE, SATURATED * feature.area)
        return values

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        scale, shift = self._folded(t, _CHANNEL)
        y = t.mul(t.x, t.sigmoid(t.per_channel_affine(t.x, scale, shift, "affine")))
        if not self._spatial:
            return y
        scale, shift = (part.reshape(1, 1, *t.feature.size) for part in self._folded(t, _SPATIAL))
        z = t.add(t.mul(y, t.constant(scale, "position.weight")), t.constant(shift, "position.bias"))
        return t.mul(y, t.sigmoid(z))

    def _folded(self, t: Template, bn: str) -> tuple[Array, Array]:
        scale, shift = affine(t.values, bn, float(self.values["bn_eps"] or 0))
        gamma = np.abs(t.values(f"{bn}.weight"))
        if gamma.sum() == 0:
            raise WeightsError(f"all of {bn}.weight is 0, and nam divides by its sum")
        weight = gamma / gamma.sum()
        return weight * scale, weight * shift

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.nam import NAM as Module

        size = feature.size if self._spatial else None
        return Module(feature.channels, variant=str(self.variant), size=size, bn_eps=float(self.values["bn_eps"] or 0))
