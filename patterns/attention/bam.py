"""BAM: one gate for channels and one for positions, side by side, joined in front of one sigmoid.

Park et al., "BAM: Bottleneck Attention Module", BMVC 2018, arXiv:1807.06514.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.block import SATURATED, Array, Block, Setting, bn_shapes
from graphsurgery.errors import BlockError
from graphsurgery.featuremap import FeatureMap
from graphsurgery.template import Template

from .initial import torch_default
from .parts import conv_bn, linear

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

    def _hidden(self, feature: FeatureMap) -> int:
        return int(self.values["hidden"] or feature.channels // int(self.values["reduction"] or 1))

    def check(self, feature: FeatureMap) -> None:
        if self._hidden(feature) < 1:
            raise BlockError(
                f"{feature.label} has {feature.channels} channels; "
                f"a reduction of {self.values['reduction']} leaves no hidden channel"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        form, channels, hidden = self._form, feature.channels, self._hidden(feature)
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

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        form, eps = self._form, float(self.values["bn_eps"] or 0)
        channel: gs.Variable = t.mean_hw(t.x)
        for layer, bn in form.channel:
            outputs, inputs = t.values(f"{layer}.weight").shape
            channel = t.relu(conv_bn(t, channel, layer, bn, _LINEAR_BN_EPS, shape=(outputs, inputs, 1, 1)))
        channel = linear(t, channel, form.channel_last)
        spatial = t.relu(conv_bn(t, t.x, *form.reduce, eps))
        around = {"dilations": [form.dilation] * 2, "pads": [form.dilation] * 4}
        for layer, bn in form.dilated:
            spatial = t.relu(conv_bn(t, spatial, layer, bn, eps, **around))
        spatial = linear(t, spatial, form.spatial_last)
        logits = t.mul(channel, spatial) if form.product else t.add(channel, spatial)
        return t.add(t.x, t.mul(t.x, t.sigmoid(logits)))

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.bam import BAM as Module

        return Module(feature.channels, self._hidden(feature), str(self.variant), float(self.values["bn_eps"] or 0))
