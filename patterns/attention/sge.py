"""SGE: within each group of channels, a gate for every position from its likeness to the group's mean vector.

Li et al., "Spatial Group-wise Enhance: Improving Semantic Feature Learning in CNNs", arXiv:1905.09646.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable

from .catalogue import CatalogueBlock
from .layers import degrees_of_freedom
from .norms import SMALLEST, deviation, largest
from .widths import require_divisor, require_positions

_EPS = 1e-5


class SpatialGroupEnhance(CatalogueBlock):
    """The published code puts batch and groups on one axis; here no group ever leaves its image.

    The normalised likeness does not depend on the length of the mean vector but through epsilon. In float16 that
    vector is divided by its largest component, and epsilon with it, so that no product leaves the type.
    """

    name = "sge"
    title = "Spatial Group-wise Enhance"
    demand = 27
    paper = "Spatial Group-wise Enhance: Improving Semantic Feature Learning in CNNs, arXiv:1905.09646"
    reference = "implus/PytorchInsight, classification/models/imagenet/resnet_sge.py"
    formula = (
        "y = x * sigmoid(weight * (t - mean t) / (std t + 1e-5) + bias), t = sum over the group of x * mean over H, W "
        "of x; std with divisor HW - 1"
    )
    untrained = "times 0.731 (ports that start with bias 0: 0.5)"
    settings = (Setting("groups", int, 64, "groups of channels; divides the channels; ports mostly have 8", minimum=1),)

    def check(self, feature: FeatureMap) -> None:
        require_divisor(feature, self.integer("groups"), "groups")
        require_positions(self, feature, "its deviation")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return {"weight": (1, self.integer("groups"), 1, 1), "bias": (1, self.integer("groups"), 1, 1)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shape = (1, self.integer("groups"), 1, 1)
        return {"weight": np.zeros(shape, np.float32), "bias": np.ones(shape, np.float32)}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_constants(feature, {"weight": 0.0, "bias": SATURATED})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        return {"groups": int(np.prod(shapes["weight"]))} if "weight" in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return ("maps",) if feature.large else ("matmul", "maps")

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return lowerings[0]

    def emit(self, t: Template, lowering: str) -> Variable:
        return self._by_matmul(t) if lowering == "matmul" else self._by_maps(t)

    def _by_matmul(self, t: Template) -> Variable:
        """On [N, G, C/G, M] with M = H*W."""
        channels, groups = t.feature.channels, self.integer("groups")
        count = channels // groups
        grouped = t.op("Reshape", t.x, t.integers([0, groups, count, t.feature.area], "groups"))
        vector = t.op("Reshape", t.mean_hw(t.x), t.integers([0, groups, 1, count], "vector"))
        with t.statistics():
            vector, eps = self._scaled(t, vector, 3)
            gate = self._gate(t, t.op("MatMul", vector, grouped), eps, lambda x: t.reduce("ReduceMean", x, (3,)))
        return t.op("Reshape", t.mul(grouped, gate), t.integers([0, channels, *t.feature.size], "map"))

    def _by_maps(self, t: Template) -> Variable:
        """On [N, G, H, W], to which and from which a convolution leads: no shape has to be known."""
        channels, groups = t.feature.channels, self.integer("groups")
        with t.statistics():
            vector, eps = self._scaled(t, t.mean_hw(t.x), 1)
            total = t.constant(np.ones((groups, channels // groups, 1, 1)), "total")
            gate = self._gate(t, t.conv(t.mul(t.x, vector), total, group=groups), eps, t.mean_hw)
        return t.mul(t.x, t.conv(gate, t.constant(np.ones((channels, 1, 1, 1)), "repeat"), group=groups))

    def _scaled(self, t: Template, vector: Variable, axis: int) -> tuple[Variable, gs.Tensor]:
        """(mean vector, epsilon), in float16 both divided by C/G times the largest mean along the axis."""
        if t.dtype != "float16":
            return vector, t.scalar(_EPS, "eps")
        count = t.feature.channels // self.integer("groups")
        top = largest(t, vector, (axis,))
        # by two factors, neither of which float16 would round away
        eps = t.mul(t.div(t.scalar(1e-2, "eps.left"), top), t.scalar(1e2 * _EPS / count, "eps.right"))
        return t.div(vector, t.mul(top, t.scalar(count, "count"))), eps

    def _gate(
        self, t: Template, likeness: Variable, eps: gs.Tensor, average: Callable[[Variable], Variable]
    ) -> Variable:
        """sigmoid(weight * normalised likeness + bias), shaped as the likeness; ``average`` is over the positions."""
        centred = t.sub(likeness, average(likeness))
        # again: where the likeness is constant, the rounding of its mean would be all there is, and count
        centred = t.sub(centred, average(centred))
        spread, freedom = deviation(t, centred, average), degrees_of_freedom(t)
        if isinstance(freedom, float):
            spread = t.mul(spread, t.scalar(1 / math.sqrt(freedom), "bessel"))
        else:
            spread = t.div(spread, t.op("Sqrt", freedom))
        spread = t.add(spread, eps)
        if t.dtype == "float16":  # weight / spread could leave it
            spread = t.op("Max", spread, t.scalar(SMALLEST, "least"))
            return t.sigmoid(t.add(t.mul(t.div(centred, spread), t.weight("weight")), t.weight("bias")))
        return t.sigmoid(t.add(t.mul(centred, t.div(t.weight("weight"), spread)), t.weight("bias")))
