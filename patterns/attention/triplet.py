"""Triplet Attention: three gates, each over two of the three axes of a map.

Misra et al., "Rotate to Attend: Convolutional Triplet Attention Module", WACV 2021, arXiv:2010.03045.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes
from graphsurgery.template import weight_folding

from . import onnxruntime_forms
from .catalogue import CatalogueBlock, bn_eps
from .layers import channel_planes_by_rows, conv_bn


class TripletAttention(CatalogueBlock):
    """The published code turns the whole map twice and multiplies it three times. Here only the pooled planes are
    turned, and the map is multiplied once, by the mean of the three gates.
    """

    name = "triplet"
    title = "Triplet Attention"
    demand = 20
    paper = "Rotate to Attend: Convolutional Triplet Attention Module, WACV 2021, arXiv:2010.03045"
    reference = "landskape-ai/triplet-attention, triplet_attention.py"
    formula = "y = x * (g_hw + g_cw + g_hc) / 3, g = sigmoid(BN(conv7x7([max, mean over the third axis])))"
    untrained = "scales its input to between 0.41 and 0.5"
    settings = (
        Setting(
            "spatial", bool, True, "whether there is a gate over H and W; the published no_spatial is its opposite"
        ),
        bn_eps(),
    )
    aliases = (
        (r"ChannelGateH\.spatial\.(.+)", r"cw.conv.\1"),
        (r"ChannelGateW\.spatial\.(.+)", r"hc.conv.\1"),
        (r"SpatialGate\.spatial\.(.+)", r"hw.conv.\1"),
    )

    @property
    def _gates(self) -> tuple[str, ...]:
        return ("cw", "hc", "hw") if self.values["spatial"] else ("cw", "hc")

    def warnings(self, feature: FeatureMap) -> list[str]:
        if self.values["spatial"]:
            return []
        return ["triplet without its spatial gate: a YAML that passes a number to triplet means no_spatial by mistake"]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for gate in self._gates:
            shapes[f"{gate}.conv.conv.weight"] = (1, 2, 7, 7)
            shapes |= bn_shapes(f"{gate}.conv.bn", 1)
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {f"{gate}.conv.bn": SATURATED for gate in self._gates})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        return {"spatial": "hw.conv.conv.weight" in shapes} if "cw.conv.conv.weight" in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """In steps: for onnxruntime, where a batch of known size lets the sum of two gates be a product."""
        known = feature.static and feature.batch is not None and feature.dtype == "float32"
        return ("planes", "steps") if known else ("planes",)

    def emit(self, t: Template, lowering: str) -> Variable:
        if lowering == "steps":
            return self._in_steps(t)
        # planes are [N, 2, C, W], [N, 2, H, C] and [N, 2, H, W]: the order of the axes that the kernels were made for
        share = t.scalar(1 / len(self._gates), "share")
        columns = t.op("Transpose", self._pooled(t, 2), perm=[0, 2, 1, 3])
        rows = t.op("Transpose", self._pooled(t, 3), perm=[0, 3, 2, 1])
        column_gate = t.mul(self._gate(t, columns, "cw"), share)
        column_gate = t.op("Reshape", column_gate, t.integers([0, t.feature.channels, 1, -1], "per_column"))
        row_gate = t.op("Transpose", t.mul(self._gate(t, rows, "hc"), share), perm=[0, 3, 2, 1])
        gate = t.add(column_gate, row_gate)
        if self.values["spatial"]:
            gate = t.add(gate, t.mul(self._gate(t, self._pooled(t, 1), "hw"), share))
        return t.mul(t.x, gate)

    def _in_steps(self, t: Template) -> Variable:
        """Convolutions in steps where the size allows; the gates of rows and columns added up by a matrix product,
        [rows, share] times [share, columns], which takes them times their share, too.
        """
        channels, (height, width), share = t.feature.channels, t.feature.size, 1 / len(self._gates)
        columns = t.op("Transpose", self._pooled(t, 2), perm=[0, 2, 1, 3])
        columns = t.op("Reshape", self._gate_in_steps(t, columns, "cw"), t.integers([0, channels, 1, width], "column"))
        rows = t.op("Transpose", self._pooled(t, 3), perm=[0, 3, 2, 1])
        rows = t.op("Transpose", self._gate_in_steps(t, rows, "hc"), perm=[0, 3, 2, 1])
        tall = t.constant(np.full((t.feature.batch or 1, channels, height, 1), share), "share")
        wide = t.constant(np.full((t.feature.batch or 1, channels, 1, width), share), "share")
        gate = t.op("MatMul", t.op("Concat", rows, tall, axis=3), t.op("Concat", wide, columns, axis=2))
        if self.values["spatial"]:
            planes = channel_planes_by_rows(t, t.x, ("ReduceMax", "ReduceMean"))
            gate = t.add(gate, t.mul(self._gate_in_steps(t, planes, "hw"), t.scalar(share, "share")))
        return t.mul(t.x, gate)

    def _gate_in_steps(self, t: Template, planes: Variable, name: str) -> Variable:
        sizes = {"cw": (t.feature.channels, t.feature.width), "hc": (t.feature.height, t.feature.channels)}
        if not onnxruntime_forms.in_steps(sizes.get(name, t.feature.size)):
            return self._gate(t, planes, name)
        scale, shift = weight_folding.affine(t.values, f"{name}.conv.bn", self.number("bn_eps"))
        weight = t.values(f"{name}.conv.conv.weight") * scale.reshape(-1, 1, 1, 1)
        return onnxruntime_forms.gate_in_steps(t, planes, weight, shift, f"{name}.conv.conv")

    def _pooled(self, t: Template, axis: int) -> Variable:
        """Largest and mean value over an axis, side by side along it."""
        return t.op("Concat", *(t.reduce(kind, t.x, (axis,)) for kind in ("ReduceMax", "ReduceMean")), axis=axis)

    def _gate(self, t: Template, plane: Variable, name: str) -> Variable:
        eps = self.number("bn_eps")
        return t.sigmoid(conv_bn(t, plane, f"{name}.conv.conv", f"{name}.conv.bn", eps, pads=[3, 3, 3, 3]))
