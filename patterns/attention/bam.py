"""BAM: one gate for channels and one for positions, side by side, joined before one sigmoid.

Park et al., "BAM: Bottleneck Attention Module", BMVC 2018, arXiv:1807.06514.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from ..forms import BAM_FORMS, BamForm
from .catalogue import CatalogueBlock
from .layers import conv_bn, folded_conv, folded_values, linear, linear_then_bias, multiplied

_LINEAR_BN_EPS = 1e-5  # of the BatchNorm1d, which Ultralytics does not touch


class BAM(CatalogueBlock):
    """All BatchNorms are folded; the linear layers are 1x1 convolutions on [N, C, 1, 1]."""

    name = "bam"
    title = "Bottleneck Attention Module"
    demand = 12
    paper = "BAM: Bottleneck Attention Module, BMVC 2018, arXiv:1807.06514"
    reference = "Jongchan/attention-module, MODELS/bam.py"
    formula = "y = x * (1 + sigmoid(channel(mean over H, W of x) * spatial(x))); paper: channel + spatial"
    untrained = "times about 1.5; the factor lies between 1 and 2"
    remarks = (
        "the channel part takes the mean over the whole map, as the paper says; the authors' file pools a window of "
        "height x height, which is the left square of a wider map and fails on a higher one",
        "the authors' code multiplies both gates, the paper adds them: the variants official and paper",
        "External-Attention's BAMBlock has the keys of cv-attention's and pads its dilated convolutions by 1, so that "
        "it fails on maps other than 7 x 7",
    )
    variants: ClassVar[dict[str, str]] = {
        "official": "the authors' code: the product of both gates; two 3x3 convolutions of dilation 4",
        "paper": "the same layers, with the sum of both gates as in the paper's text",
        "cv-attention": "the sum, three linear layers and three 3x3 convolutions of dilation 2 (cv-attention)",
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
    def _form(self) -> BamForm:
        return BAM_FORMS[str(self.variant)]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        form, channels, hidden = self._form, feature.channels, self.hidden(feature)
        shapes: dict[str, tuple[int, ...]] = {}
        for number, (layer, bn) in enumerate(form.channel):
            shapes |= layer_shapes({layer: (hidden, hidden if number else channels)}) | bn_shapes(bn, hidden)
        shapes |= layer_shapes({form.channel_last: (channels, hidden)})
        for number, (layer, bn) in enumerate((form.reduce, *form.dilated)):
            shape = (hidden, hidden, 3, 3) if number else (hidden, channels, 1, 1)
            shapes |= layer_shapes({layer: shape}) | bn_shapes(bn, hidden)
        return shapes | layer_shapes({form.spatial_last: (1, hidden, 1, 1)})

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        """The argument of the sigmoid at -40 everywhere: 1 plus that is 1 in every type."""
        spatial = 1.0 if self._form.product else -SATURATED
        return self.with_biases(feature, {self._form.channel_last: -SATURATED, self._form.spatial_last: spatial})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        key = f"{self._form.reduce[0]}.weight"
        return {"hidden": shapes[key][0]} if key in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """Linear layers as convolutions, or as products on the means and, at a static site, on the map's rows.

        onnxruntime reorders the whole map for a convolution, and computes sixteen channels where there are fewer.
        """
        return ("convolution", "product") if feature.static else ("convolution",)

    def emit(self, t: Template, lowering: str) -> Variable:
        form, eps, product = self._form, self.number("bn_eps"), lowering == "product"
        channel: Variable = t.reduce("ReduceMean", t.x, (2, 3), keepdims=0 if product else 1)
        for layer, bn in form.channel:
            shape = t.values(f"{layer}.weight").shape
            folded = folded_conv(t, layer, bn, _LINEAR_BN_EPS, shape=shape if product else (*shape, 1, 1))
            channel = t.relu(multiplied(t, channel, folded, gemm=product))
        channel = linear(t, channel, form.channel_last, gemm=product)
        if product:
            channel = t.op("Reshape", channel, t.integers([0, t.feature.channels, 1, 1], "column"))
        spatial = t.relu(self._reduced(t, eps) if product else conv_bn(t, t.x, *form.reduce, eps))
        around = {"dilations": [form.dilation] * 2, "pads": [form.dilation] * 4}
        for layer, bn in form.dilated:
            spatial = t.relu(conv_bn(t, spatial, layer, bn, eps, **around))
        spatial = linear_then_bias(t, spatial, form.spatial_last)
        logits = t.mul(channel, spatial) if form.product else t.add(channel, spatial)
        gate = t.sigmoid(logits)
        if product:  # the sum of a map and a number is one that onnxruntime writes in place
            return t.mul(t.x, t.add(gate, t.scalar(1.0, "one")))
        return t.add(t.x, t.mul(t.x, gate))

    def _reduced(self, t: Template, eps: float) -> Variable:
        """The first convolution of the spatial part as a product with the map's rows."""
        hidden, channels = self.hidden(t.feature), t.feature.channels
        weight, bias = folded_values(t, *self._form.reduce, eps, shape=(1, hidden, channels))
        rows = t.op("Reshape", t.x, t.integers([0, channels, t.feature.area], "rows"))
        y = t.op("Reshape", t.op("MatMul", weight, rows), t.integers([0, hidden, *t.feature.size], "map"))
        return t.add(y, t.constant(bias.reshape(1, -1, 1, 1), f"{self._form.reduce[0]}.bias"))
