"""NAM: the BatchNorm scale, normalised over the channels, as the weight of a per-position gate.

Liu et al., "NAM: Normalization-based Attention Module", arXiv:2111.12419.
"""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes
from graphsurgery.errors import WeightsError
from graphsurgery.template.weight_folding import affine

from .catalogue import CatalogueBlock, bn_eps
from .widths import require_static

_CHANNEL, _SPATIAL = "Channel_Att.bn2", "Spatial_Att.bn2"
# Any positive scale gives the weights 1/C; a small one keeps the gate at 1 for inputs down to -3000 * C.
_IDENTITY_SCALE = 1e-3


class NAM(CatalogueBlock):
    """y = x * sigmoid(w * BN(x)) with w = |gamma| / sum |gamma|: evaluated, an affine, a sigmoid, a product."""

    name = "nam"
    title = "Normalization-based Attention"
    demand = 4
    paper = "NAM: Normalization-based Attention Module, arXiv:2111.12419"
    reference = "Christian-lyc/NAM, MODELS/attention.py (channel attention only)"
    formula = (
        "y = x * sigmoid(|gamma_c| / sum_k |gamma_k| * BatchNorm(x)); absolute=false: gamma_c / sum_k gamma_k, as the "
        "paper writes it"
    )
    untrained = "halves its input"
    remarks = (
        "the weights are made of absolute values, as in the authors' code; the paper has none: absolute=false",
        "the authors' code has no spatial part; it is that of forks, after the paper's text",
    )
    variants: ClassVar[dict[str, str]] = {
        "channel": "the official code: channel attention only",
        "channel+spatial": "as in forks: then the same over the H*W positions (fixes height and width)",
        "spatial": "the part over the positions alone (fixes height and width)",
    }
    settings = (
        bn_eps("BatchNorm"),
        Setting("absolute", bool, True, "absolute values in the weights, as in the code", later=True),
    )
    aliases = (
        (r"(?:channel_att\.|ca\.)?bn2?\.(\w+)", rf"{_CHANNEL}.\1"),
        (r"(?:spatial_att|sa)\.bn2?\.(\w+)", rf"{_SPATIAL}.\1"),
    )

    @property
    def _parts(self) -> list[str]:
        """Prefixes of the BatchNorms, in order."""
        return [{"channel": _CHANNEL, "spatial": _SPATIAL}[part] for part in str(self.variant).split("+")]

    def official_key(self, key: str) -> str:
        """The aliases; a BatchNorm without a name beside it is that of the only part there is."""
        official = super().official_key(key)
        bare = self._parts == [_SPATIAL] and re.fullmatch(r"bn2?\.\w+", key)
        return official.replace(_CHANNEL, _SPATIAL) if bare else official

    def check(self, feature: FeatureMap) -> None:
        if _SPATIAL in self._parts:
            require_static(feature, f"{self.spelled} has one weight per position")

    def _sizes(self, feature: FeatureMap) -> dict[str, int]:
        """Prefix of each BatchNorm -> its width."""
        return {part: feature.channels if part == _CHANNEL else feature.area for part in self._parts}

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for part, size in self._sizes(feature).items():
            shapes |= bn_shapes(part, size)
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        values: dict[str, float] = {}
        for part, size in self._sizes(feature).items():
            values |= {f"{part}.weight": _IDENTITY_SCALE, f"{part}.bias": SATURATED * size}
        return self.with_constants(feature, values)

    def emit(self, t: Template, lowering: str) -> Variable:
        y: Variable = t.x
        for part in self._parts:
            y = t.mul(y, t.sigmoid(self._normalised(t, y, part)))
        return y

    def _normalised(self, t: Template, x: Variable, part: str) -> Variable:
        """The argument of a part's sigmoid."""
        scale, shift = self._folded(t, part)
        if part == _CHANNEL:
            return t.per_channel_affine(x, scale, shift, "affine")
        scale, shift = (values.reshape(1, 1, *t.feature.size) for values in (scale, shift))
        return t.add(t.mul(x, t.constant(scale, "position.weight")), t.constant(shift, "position.bias"))

    def _folded(self, t: Template, bn: str) -> tuple[Array, Array]:
        scale, shift = affine(t.values, bn, self.number("bn_eps"))
        gamma = t.values(f"{bn}.weight")
        if self.flag("absolute"):
            gamma = np.abs(gamma)
        if gamma.sum() == 0:
            what = f"all of {bn}.weight is 0" if not gamma.any() else f"the sum of {bn}.weight is 0"
            raise WeightsError(f"{what}, and nam divides by its sum")
        weight = gamma / gamma.sum()
        return weight * scale, weight * shift
