"""NAM: the BatchNorm scale, normalised over the channels, as the weight of a per-position gate.

Liu et al., "NAM: Normalization-based Attention Module", arXiv:2111.12419.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes
from graphsurgery.errors import WeightsError
from graphsurgery.template.weight_folding import affine

from .catalogue import CatalogueBlock, bn_eps
from .widths import require_static

_CHANNEL, _SPATIAL = "Channel_Att.bn2", "Spatial_Att.bn2"
# Any positive scale gives the weights 1/C; a small one keeps the gate at 1 for inputs down to -3000 * C.
_IDENTITY_SCALE = 1e-3


class NAM(CatalogueBlock):
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
    settings = (bn_eps("BatchNorm"),)
    aliases = (
        (r"(?:channel_att\.|ca\.)?bn2?\.(\w+)", rf"{_CHANNEL}.\1"),
        (r"(?:spatial_att|sa)\.bn2?\.(\w+)", rf"{_SPATIAL}.\1"),
    )

    @property
    def _spatial(self) -> bool:
        return self.variant == "channel+spatial"

    def check(self, feature: FeatureMap) -> None:
        if self._spatial:
            require_static(feature, f"{self.spelled} has one weight per position")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        shapes = bn_shapes(_CHANNEL, feature.channels)
        return shapes | bn_shapes(_SPATIAL, feature.area) if self._spatial else shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        values = {f"{_CHANNEL}.weight": _IDENTITY_SCALE, f"{_CHANNEL}.bias": SATURATED * feature.channels}
        if self._spatial:
            values |= {f"{_SPATIAL}.weight": _IDENTITY_SCALE, f"{_SPATIAL}.bias": SATURATED * feature.area}
        return self.with_constants(feature, values)

    def emit(self, t: Template, lowering: str) -> Variable:
        scale, shift = self._folded(t, _CHANNEL)
        y = t.mul(t.x, t.sigmoid(t.per_channel_affine(t.x, scale, shift, "affine")))
        if not self._spatial:
            return y
        scale, shift = (part.reshape(1, 1, *t.feature.size) for part in self._folded(t, _SPATIAL))
        z = t.add(t.mul(y, t.constant(scale, "position.weight")), t.constant(shift, "position.bias"))
        return t.mul(y, t.sigmoid(z))

    def _folded(self, t: Template, bn: str) -> tuple[Array, Array]:
        scale, shift = affine(t.values, bn, self.number("bn_eps"))
        gamma = np.abs(t.values(f"{bn}.weight"))
        if gamma.sum() == 0:
            raise WeightsError(f"all of {bn}.weight is 0, and nam divides by its sum")
        weight = gamma / gamma.sum()
        return weight * scale, weight * shift
