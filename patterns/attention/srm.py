"""SRM: a gate for every channel from its own mean and standard deviation.

Lee et al., "SRM: A Style-based Recalibration Module for Convolutional Neural Networks", ICCV 2019, arXiv:1903.10829.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, torch_default
from graphsurgery.template.weight_folding import affine

from .catalogue import CatalogueBlock, bn_eps
from .layers import degrees_of_freedom, moments
from .widths import require_positions


class StyleRecalibration(CatalogueBlock):
    """The BatchNorm is folded into the two weights of each channel, and M / (M - 1) of the variance into the second."""

    name = "srm"
    title = "Style-based Recalibration"
    demand = 20
    paper = "SRM: A Style-based Recalibration Module for CNNs, ICCV 2019, arXiv:1903.10829"
    reference = "hyunjaelee410/style-based-recalibration-module, models/recalibration_modules.py"
    formula = "y = x * sigmoid(BN(cfc_0 * mean + cfc_1 * std)), over H, W of x; std with divisor HW - 1"
    untrained = "halves its input"
    settings = (bn_eps("BatchNorm"),)

    def check(self, feature: FeatureMap) -> None:
        require_positions(self, feature, "its deviation")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return {"cfc": (feature.channels, 2), **bn_shapes("bn", feature.channels)}

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """The two weights of a channel as others have them: a grouped Conv1d over mean and deviation, [C, 1, 2]."""
        layer = "cfc.weight"
        if layer not in arrays or arrays[layer].shape[1:] != (1, 2):
            return arrays
        return {"cfc" if key == layer else key: v[:, 0] if key == layer else v for key, v in arrays.items()}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        bn = bn_shapes("bn", feature.channels)
        return {"cfc": np.zeros((feature.channels, 2), np.float32), **torch_default(bn, rng)}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_constants(feature, {"bn.bias": SATURATED})

    def emit(self, t: Template, lowering: str) -> Variable:
        scale, shift = affine(t.values, "bn", self.number("bn_eps"))
        of_mean, of_deviation = (t.values("cfc") * scale[:, None]).T
        mean, deviation = moments(t, t.x)
        freedom = degrees_of_freedom(t)
        if isinstance(freedom, float):
            of_deviation = of_deviation / math.sqrt(freedom)
        else:
            deviation = t.div(deviation, t.op("Sqrt", freedom))
        weighted = [
            t.mul(style, t.constant(weight.reshape(1, -1, 1, 1), name))
            for style, weight, name in ((mean, of_mean, "cfc.mean"), (deviation, of_deviation, "cfc.std"))
        ]
        logits = t.add(t.add(*weighted), t.constant(shift.reshape(1, -1, 1, 1), "bn.bias"))
        return t.mul(t.x, t.sigmoid(logits))
