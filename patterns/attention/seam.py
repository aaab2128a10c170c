"""SEAM: an enhancing gate for every channel, exp(sigmoid), from depthwise separable convolutions of the map.

Yu et al., "YOLO-FaceV2: A Scale and Occlusion Aware Face Detector", arXiv:2208.02019.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import ClassVar

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from ..forms import SEAM_PATCHES
from .activations import gelu, silu, twice_gelu
from .catalogue import CatalogueBlock, bn_eps
from .layers import batch_norm, linear


class SEAM(CatalogueBlock):
    """BatchNorms come after the activation, and take GELU's factor 1/2; the last is applied to the mean, [N, C, 1, 1].

    Only for onnxruntime the GELU stays whole, which that joins to one operator.
    """

    name = "seam"
    title = "SEAM (YOLO-FaceV2)"
    demand = 15
    paper = "YOLO-FaceV2: A Scale and Occlusion Aware Face Detector, arXiv:2208.02019"
    reference = "Krasjet-Yu/YOLO-FaceV2, models/common.py"
    formula = (
        "y = x * exp(sigmoid(fc2(relu(fc0(m))))), m = mean over H, W of BN(gelu(conv(z + BN(gelu(dw(z)))))), z = x; "
        "multi: m over patches of 3, 5 and 7 and x, averaged"
    )
    untrained = "times about 1.65, the exponential of a half"
    variants: ClassVar[dict[str, str]] = {
        "single": "SEAM: the convolutions see the map",
        "multi": "MultiSEAM: they see patches of three sizes, and the mean of the map is added",
    }
    module_classes: ClassVar[dict[str, str]] = {"multi": "MultiSEAM"}
    settings = (
        Setting("reduction", int, 16, "channels over hidden channels of the gate", minimum=1),
        Setting("hidden", int, None, "hidden channels of the gate; overrules reduction", minimum=1),
        Setting("depth", int, 1, "mixers one behind the other", minimum=1),
        Setting(
            "activation",
            str,
            "gelu",
            "gelu in YOLO-FaceV2, silu in the MultiSEAM of many YOLO collections",
            choices=("gelu", "silu"),
            later=True,
        ),
        bn_eps(),
    )

    @property
    def _branches(self) -> dict[str, int]:
        """Prefix -> side of its patches; 0 where there are none."""
        if self.variant == "single":
            return {"DCovN": 0}
        return {f"DCovN{number}": side for number, side in enumerate(SEAM_PATCHES)}

    def _mixers(self, branch: str, patch: int) -> list[str]:
        first = 3 if patch else 0  # behind the convolution, GELU and BatchNorm of the patches
        return [f"{branch}.{first + number}" for number in range(self.integer("depth"))]

    def check(self, feature: FeatureMap) -> None:
        super().check(feature)
        largest = max(self._branches.values())
        if feature.static and min(feature.size) < largest:
            height, width = feature.size
            raise BlockError(f"{self.spelled} has patches of {largest}, and {feature.label} is {height} x {width}")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self.hidden(feature)
        shapes: dict[str, tuple[int, ...]] = {}
        for branch, patch in self._branches.items():
            layers = {f"{branch}.0": (f"{branch}.2", (channels, channels, patch, patch))} if patch else {}
            for mixer in self._mixers(branch, patch):
                layers[f"{mixer}.0.fn.0"] = (f"{mixer}.0.fn.2", (channels, 1, 3, 3))
                layers[f"{mixer}.1"] = (f"{mixer}.3", (channels, channels, 1, 1))
            for layer, (bn, shape) in layers.items():
                shapes |= layer_shapes({layer: shape}) | bn_shapes(bn, channels)
        return shapes | layer_shapes({"fc.0": (hidden, channels), "fc.2": (channels, hidden)}, bias=False)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if self.variant == "multi":
            raise self.no_identity("makes its gate of the mean of the map, too, and has no bias there")
        last = self._mixers("DCovN", 0)[-1]
        constants = {f"{last}.3.weight": 0.0, f"{last}.3.bias": 1.0}
        # every hidden channel is 1, and the logits are far enough below 0 for exp(sigmoid) to be 1
        gate = {"fc.0.weight": 1 / feature.channels, "fc.2.weight": -4 * SATURATED / self.hidden(feature)}
        return self.with_constants(feature, constants | gate)

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        branch, patch = next(iter(self._branches.items()))
        first = 3 if patch else 0
        depth = sum(f"{branch}.{first + number}.1.weight" in shapes for number in range(len(shapes)))
        found: dict[str, object] = {"depth": depth} if depth else {}
        return found | ({"hidden": shapes["fc.0.weight"][0]} if "fc.0.weight" in shapes else {})

    def emit(self, t: Template, lowering: str) -> Variable:
        means = [self._mean(t, branch, patch) for branch, patch in self._branches.items()]
        if self.variant == "multi":
            total = reduce(t.add, [*means, t.mean_hw(t.x)])
            means = [t.mul(total, t.scalar(1 / (len(SEAM_PATCHES) + 1), "share"))]
        gate = linear(t, t.relu(linear(t, means[0], "fc.0", bias=False)), "fc.2", bias=False)
        with t.statistics():
            gate = t.op("Exp", t.sigmoid(gate))
        return t.mul(t.x, gate)

    def _mean(self, t: Template, branch: str, patch: int) -> Variable:
        """The mean over H and W of what a branch gives: [N, C, 1, 1]."""
        x: Variable = t.x
        if patch:
            x = self._activated(t, x, f"{branch}.0", strides=[patch] * 2)
            x = self._normalised(t, x, f"{branch}.2")
        *mixers, last = self._mixers(branch, patch)
        for mixer in mixers:
            x = self._normalised(t, self._mixed(t, x, mixer), f"{mixer}.3")
        return self._normalised(t, t.mean_hw(self._mixed(t, x, last)), f"{last}.3")

    def _mixed(self, t: Template, x: Variable, mixer: str) -> Variable:
        """A mixer but for its last BatchNorm."""
        near = self._activated(t, x, f"{mixer}.0.fn.0", pads=[1] * 4, group=t.feature.channels)
        return self._activated(t, t.add(self._normalised(t, near, f"{mixer}.0.fn.2"), x), f"{mixer}.1")

    def _activated(self, t: Template, x: Variable, layer: str, **attributes: object) -> Variable:
        """A convolution and its activation, which a BatchNorm follows."""
        whole = self.text("activation") == "gelu" or t.target == "onnxruntime"
        factor = 1.0 if whole else 0.5
        weight, bias = (t.weight(f"{layer}.{each}", factor=factor) for each in ("weight", "bias"))
        y = t.conv(x, weight, bias, **attributes)
        if not whole:  # OpenCV takes SiLU and the factor of a BatchNorm behind it into the convolution, and is wrong
            return t.mul(y, t.add(t.op("Tanh", y), t.scalar(1.0, "one")))
        if self._doubled(t):
            return twice_gelu(t, y)
        return gelu(t, y) if self.text("activation") == "gelu" else silu(t, y)

    def _normalised(self, t: Template, x: Variable, bn: str) -> Variable:
        return batch_norm(t, x, bn, self.number("bn_eps"), factor=0.5 if self._doubled(t) else 1.0)

    def _doubled(self, t: Template) -> bool:
        """Whether the factor 1/2 of the GELUs is part of the BatchNorms behind them."""
        return self.text("activation") == "gelu" and t.target != "onnxruntime"
