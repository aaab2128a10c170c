"""BAM: one gate for channels and one for positions, side by side, joined in front of one sigmoid.

Park et al., "BAM: Bottleneck Attention Module", BMVC 2018, arXiv:1807.06514.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks.block import SATURATED, Array, Block, Setting
from graphsurgery.blocks.initial_weights import bn_shapes
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template.template import Template

from .hidden import hidden_width, require_hidden
from .initial import torch_default
from .parts import conv_bn, folded_conv, folded_values, linear

if TYPE_CHECKING:
    import torch

_LINEAR_BN_EPS = 1e-5  # of the BatchNorm1d, which Ultralytics does not touch


@dataclass(frozen=True)
class _Form:
    """How a source has it: (prefix of the layer, prefix of its BatchNorm) in order, and the last layers."""

    channel: tuple[tuple[str, str], ...]
    channel_last: str
    reduce: tuple[str, str]
    dilated: tuple[tuple[str, str], ...]
    spatial_last: str
    dilation: int
    product: bool


_C, _S = "channel_att.gate_c.gate_c", "spatial_att.gate_s.gate_s"
_OFFICIAL = _Form(
    ((f"{_C}_fc_0", f"{_C}_bn_1"),),
    f"{_C}_fc_final",
    (f"{_S}_conv_reduce0", f"{_S}_bn_reduce0"),
    tuple((f"{_S}_conv_di_{i}", f"{_S}_bn_di_{i}") for i in range(2)),
    f"{_S}_conv_final",
    dilation=4,
    product=True,
)
_FORMS = {
    "official": _OFFICIAL,
    "paper": _Form(**{**vars(_OFFICIAL), "product": False}),
    "cv-attention": _Form(
        tuple((f"ca.ca.fc{i}", f"ca.ca.bn{i}") for i in range(3)),
        "ca.ca.last_fc",
        ("sa.sa.conv_reduce1", "sa.sa.bn_reduce1"),
        tuple((f"sa.sa.conv_{i}", f"sa.sa.bn_{i}") for i in range(3)),
        "sa.sa.last_conv",
        dilation=2,
        product=False,
    ),
}


class BAM(Block):
    """All BatchNorms are folded; the linear layers are 1x1 convolutions on [N, C, 1, 1]."""

    name = "bam"
    title = "Bottleneck Attention Module"
    demand = 12
    paper = "BAM: Bottleneck Attention Module, BMVC 2018, arXiv:1807.06514"
    reference = "Jongchan/attention-module, MODELS/bam.py"
    formula = "y = x * (1 + sigmoid(channel(mean over H, W of x) * spatial(x))); paper: channel + spatial"
    untrained = "times about 1.5; the factor lies between 1 and 2"
    variants: ClassVar[dict[str, str]] = {
        "official": "the authors' code: the product of both gates; two 3x3 convolutions of dilation 4",
        "paper": "the same layers, with the sum of both gates as in the paper's text",
        "cv-attention": "the sum, three linear layers and three 3x3 convolutions of dilation 2 (External-Attention)",
    }
    settings = (
        Setting("reduction", int, 16, "channels over hidden channels", minimum=1),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1),
        Setting(
            "bn_eps",
            float,
            1e-5,
            "epsilon of the spatial BatchNorms; models trained with Ultralytics have 1e-3 (and 1e-5 in the channel's)",
            above=0,
        ),
    )

    @property
    def _form(self) -> _Form:
        return _FORMS[str(self.variant)]

    def check(self, feature: FeatureMap) -> None:
        require_hidden(hidden_width(self, feature), self.values["reduction"], feature)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        form, channels, hidden = self._form, feature.channels, hidden_width(self, feature)
        shapes: dict[str, tuple[int, ...]] = {}
        width = channels
        for layer, bn in form.channel:
            shapes |= {f"{layer}.weight": (hidden, width), f"{layer}.bias": (hidden,), **bn_shapes(bn, hidden)}
            width = hidden
        shapes |= {f"{form.channel_last}.weight": (channels, hidden), f"{form.channel_last}.bias": (channels,)}
        sizes = [(channels, 1), *[(hidden, 3)] * len(form.dilated)]
        for (layer, bn), (width, kernel) in zip((form.reduce, *form.dilated), sizes, strict=True):
            shapes |= {f"{layer}.weight": (hidden, width, kernel, kernel), f"{layer}.bias": (hidden,)}
            shapes |= bn_shapes(bn, hidden)
        return shapes | {f"{form.spatial_last}.weight": (1, hidden, 1, 1), f"{form.spatial_last}.bias": (1,)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return torch_default(self.parameters(feature), rng)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        """The argument of the sigmoid at -40 everywhere: 1 plus that is 1 in every type."""
        values = self.initial(feature, np.random.default_rng(0))
        for prefix, bias in ((self._form.channel_last, -SATURATED), (self._form.spatial_last, 1.0)):
            values[f"{prefix}.weight"] = np.zeros_like(values[f"{prefix}.weight"])
            values[f"{prefix}.bias"] = np.full_like(
                values[f"{prefix}.bias"], bias if self._form.product else -SATURATED
            )
        return values

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        key = f"{self._form.reduce[0]}.weight"
        return {"hidden": shapes[key][0]} if key in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """Linear layers as convolutions, or as products on the means and, at a static site, on the map's rows."""
        return ("convolution", "product") if feature.static else ("convolution",)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        # onnxruntime reorders the whole map for a convolution, and computes sixteen channels where there are fewer
        return lowerings[-1] if t.target == "onnxruntime" else "convolution"

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        form, eps, product = self._form, float(self.values["bn_eps"] or 0), lowering == "product"
        channel: gs.Variable = t.reduce("ReduceMean", t.x, (2, 3), keepdims=0 if product else 1)
        for layer, bn in form.channel:
            outputs, inputs = t.values(f"{layer}.weight").shape
            if product:
                folded = folded_conv(t, layer, bn, _LINEAR_BN_EPS, shape=(outputs, inputs))
                channel = t.relu(t.op("Gemm", channel, *folded, transB=1))
            else:
                channel = t.relu(conv_bn(t, channel, layer, bn, _LINEAR_BN_EPS, shape=(outputs, inputs, 1, 1)))
        if product:
            last = [t.weight(f"{form.channel_last}.{part}") for part in ("weight", "bias")]
            channel = t.op("Gemm", channel, *last, transB=1)
            channel = t.op("Reshape", channel, t.integers([0, t.feature.channels, 1, 1], "column"))
        else:
            channel = linear(t, channel, form.channel_last)
        spatial = t.relu(self._reduced(t, eps) if product else conv_bn(t, t.x, *form.reduce, eps))
        around = {"dilations": [form.dilation] * 2, "pads": [form.dilation] * 4}
        for layer, bn in form.dilated:
            spatial = t.relu(conv_bn(t, spatial, layer, bn, eps, **around))
        spatial = linear(t, spatial, form.spatial_last)
        logits = t.mul(channel, spatial) if form.product else t.add(channel, spatial)
        gate = t.sigmoid(logits)
        if product:  # the sum of a map and a number is one that onnxruntime writes in place
            return t.mul(t.x, t.add(gate, t.scalar(1.0, "one")))
        return t.add(t.x, t.mul(t.x, gate))

    def _reduced(self, t: Template, eps: float) -> gs.Variable:
        """The first convolution of the spatial part as a product with the map's rows."""
        hidden, channels = hidden_width(self, t.feature), t.feature.channels
        weight, bias = folded_values(t, *self._form.reduce, eps, shape=(1, hidden, channels))
        rows = t.op("Reshape", t.x, t.integers([0, channels, t.feature.area], "rows"))
        y = t.op("Reshape", t.op("MatMul", weight, rows), t.integers([0, hidden, *t.feature.size], "map"))
        return t.add(y, t.constant(bias.reshape(1, -1, 1, 1), f"{self._form.reduce[0]}.bias"))

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.bam import BAM as Module

        return Module(
            feature.channels, hidden_width(self, feature), str(self.variant), float(self.values["bn_eps"] or 0)
        )
