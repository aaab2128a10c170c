"""SimAM: a parameter-free gate from each position's energy within its channel.

Yang et al., "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks", ICML 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks import FeatureMap, Setting, Template, Variable

from . import norms
from .catalogue import CatalogueBlock
from .layers import degrees_of_freedom
from .widths import require_positions

_DEGREES = "HW-1"
# Smallest deviation that the float16 form divides by: its square, 2.4e-4, is still a normal float16 number.
_SMALLEST_DEVIATION = 2.0**-6


class SimAM(CatalogueBlock):
    """With M = H*W, v the population variance and k = (M-1)/M: E = d^2 k / (4 (v + lambda k)) + 1/2, where d = x -
    mean.

    This is the official d^2 / (4 (sum d^2 / (M-1) + lambda)) + 1/2, written with means: no sum that float16 cannot
    hold. With the divisor M, k is 1.
    """

    name = "simam"
    title = "SimAM"
    demand = 1
    paper = "SimAM: A Simple, Parameter-Free Attention Module for CNNs, ICML 2021"
    reference = "ZjjConan/SimAM, networks/attentions/simam_module.py"
    formula = (
        "y = x * sigmoid(d^2 / (4 (sum(d^2) / (HW - 1) + e_lambda)) + 0.5), d = x - mean over H, W; divisor=HW: as the "
        "paper writes it, with HW for HW - 1"
    )
    untrained = "nothing to train; the gate lies between 0.62 and 1, about 0.67 on average"
    remarks = (
        "the variance has the divisor HW - 1, as in the authors' code; the paper writes 1 / M with M = HW: divisor=HW",
    )
    settings = (
        # a smaller one would vanish in float16, and a constant channel give 0/0
        Setting("e_lambda", float, 1e-4, "regularises the variance; the paper's ImageNet runs use 0.1", minimum=1e-8),
        Setting(
            "divisor", str, _DEGREES, "HW-1 as in the code, HW as in the paper", choices=(_DEGREES, "HW"), later=True
        ),
    )

    def check(self, feature: FeatureMap) -> None:
        if self._by_degrees:
            require_positions(self, feature, "its energy")

    @property
    def _by_degrees(self) -> bool:
        """Whether the divisor is HW - 1."""
        return self.text("divisor") == _DEGREES

    def warnings(self, feature: FeatureMap) -> list[str]:
        e_lambda = self.number("e_lambda")
        if e_lambda < 1:
            return []
        return [
            f"e_lambda={e_lambda:g} makes the gate a constant 0.62 for ordinary activations; "
            "ports that pass the channel number there by mistake do that"
        ]

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        if not feature.static:
            return ("scaled-mean",) if feature.dtype == "float16" else ("mean",)
        forms = {"float16": ["scaled-mean"], "float32": ["scaled-mean", "mean"]}.get(feature.dtype, ["mean"])
        if norms.INSTANCE_NORM in norms.of_maps(feature, opset):
            forms.insert(0, norms.INSTANCE_NORM)
        return forms

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        if t.target == "dla" and "scaled-mean" in lowerings:
            return "scaled-mean"  # a DLA has no InstanceNormalization, and computes in float16
        # onnxruntime's InstanceNormalization runs on one core; measured, the mean form is as fast or faster on two
        return lowerings[-1] if t.target == "onnxruntime" and t.feature.dtype == "float32" else lowerings[0]

    def emit(self, t: Template, lowering: str) -> Variable:
        if lowering == "scaled-mean":
            return t.mul(t.x, self._gate(t, self._means(t, scaled=True)))
        with t.statistics():
            normal = lowering == norms.INSTANCE_NORM
            gate = self._gate(t, self._instance_norm(t) if normal else self._means(t, scaled=False))
        return t.mul(t.x, gate)

    def _gate(self, t: Template, energy: Variable) -> Variable:
        return t.sigmoid(t.add(energy, t.scalar(0.5, "half")))

    def _instance_norm(self, t: Template) -> Variable:
        """E - 1/2 as the square of one InstanceNormalization of scale sqrt(k)/2 and epsilon lambda k."""
        k = (t.feature.area - 1) / t.feature.area if self._by_degrees else 1.0
        scale = t.constant(np.full(t.feature.channels, math.sqrt(k) / 2), "scale")
        bias = t.constant(np.zeros(t.feature.channels), "bias")
        normal = t.op("InstanceNormalization", t.x, scale, bias, epsilon=self.number("e_lambda") * k)
        return t.mul(normal, normal)

    def _means(self, t: Template, *, scaled: bool) -> Variable:
        """E - 1/2 from means. Where it is ``scaled``, deviations are divided by the largest of their channel first, so
        that no square leaves float16.
        """
        deviation = t.sub(t.x, t.mean_hw(t.x))
        if scaled:
            largest = norms.largest(t, deviation, (2, 3), _SMALLEST_DEVIATION)
            deviation = t.div(deviation, largest)
        square = t.mul(deviation, deviation)
        variance, k = t.mean_hw(square), degrees_of_freedom(t) if self._by_degrees else 1.0
        if scaled:
            root = t.div(t.scalar(math.sqrt(self.number("e_lambda")), "root_lambda"), largest)
            added = _times(t, k, 1.0, "one", t.mul(root, root))
        else:
            added = _times(t, k, self.number("e_lambda"), "e_lambda")
        regularised = t.add(variance, added)
        return t.mul(square, t.div(_times(t, k, 0.25, "quarter"), regularised))


def _times(t: Template, k: float | Variable, factor: float, name: str, tensor: Variable | None = None) -> gs.Tensor:
    """k * factor * tensor, with as much of it folded into one constant as is known."""
    if isinstance(k, float):
        known = t.scalar(k * factor, name)
        return known if tensor is None else t.mul(tensor, known)
    product = k if factor == 1.0 else t.mul(k, t.scalar(factor, name))
    return product if tensor is None else t.mul(tensor, product)
