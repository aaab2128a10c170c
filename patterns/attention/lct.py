"""LCT: a linear gate for every channel from its mean, normalised within a group of channels.

Ruan et al., "Linear Context Transform Block", AAAI 2020, arXiv:1909.03834.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable

from . import norms
from .catalogue import CatalogueBlock
from .widths import require_divisor


class LinearContextTransform(CatalogueBlock):
    """A group normalisation of [N, C, 1, 1], and with it all statistics, on the means alone."""

    name = "lct"
    title = "Linear Context Transform"
    demand = 21
    paper = "Linear Context Transform Block, AAAI 2020, arXiv:1909.03834"
    reference = "the paper; its code is not public, and re-implementations agree on the formula and on keys w, b"
    formula = "y = x * sigmoid(w * GroupNorm(mean over H, W of x) + b)"
    untrained = "times about 0.56"
    settings = (
        Setting("groups", int, 16, "groups of channels to normalise within; divides the channels", minimum=1),
        Setting("eps", float, 1e-5, "epsilon of the normalisation", above=0),
    )
    aliases = ((r"(?:gn|norm)\.weight|weight", "w"), (r"(?:gn|norm)\.bias|bias", "b"))

    def check(self, feature: FeatureMap) -> None:
        require_divisor(feature, self.integer("groups"), "groups")

    def warnings(self, feature: FeatureMap) -> list[str]:
        groups = self.integer("groups")
        constant = f"with one channel to a group (groups={groups}) the gate does not depend on the input"
        return [constant] if feature.channels == groups else []

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return {"w": (feature.channels,), "b": (feature.channels,)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return {"w": np.ones(feature.channels, np.float32), "b": np.zeros(feature.channels, np.float32)}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_constants(feature, {"w": 0.0, "b": SATURATED})

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return norms.lowerings(feature, opset)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return norms.choose(t, lowerings)

    def emit(self, t: Template, lowering: str) -> Variable:
        eps = self.number("eps")
        weight, bias = t.values("w"), t.values("b")
        normal = norms.group_norm(t, t.mean_hw(t.x), self.integer("groups"), weight, bias, eps, lowering, side=2)
        return t.mul(t.x, t.sigmoid(normal))
