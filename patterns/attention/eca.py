"""ECA: a gate for every channel from the means of its neighbours in the order of channels.

Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020, arXiv:1910.03151.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from .catalogue import CatalogueBlock
from .widths import require_odd

_BAND_UP_TO = 1024  # channels: a band matrix of more would put more than 4 MB of zeros into the model


class ECA(CatalogueBlock):
    """The convolution over the channels as a 1x1 convolution whose C x C weight is a band, or over a row of them."""

    name = "eca"
    title = "Efficient Channel Attention"
    demand = 6
    paper = "ECA-Net: Efficient Channel Attention for Deep CNNs, CVPR 2020, arXiv:1910.03151"
    reference = "BangguWu/ECANet, models/eca_module.py"
    formula = "y = x * sigmoid(conv1d_k(mean over H, W of x, as a sequence of C))"
    untrained = "halves its input"
    remarks = ("the kernel is 3 unless given, as in the authors' class; the paper's follows from C: adaptive=true",)
    variants: ClassVar[dict[str, str]] = {
        "official": "the sequence of channels is padded with zeros",
        "timm-ceca": "timm's CecaModule: the sequence is a ring",
    }
    settings = (
        Setting(
            "kernel", int, None, "channels under the kernel, odd; 3 as in the official code if not given", minimum=1
        ),
        Setting("adaptive", bool, False, "kernel from the number of channels C: the odd one at (log2(C) + 1) / 2"),
        Setting("bias", bool, False, "whether the convolution has a bias; only External-Attention's port has one"),
    )
    aliases = ((r"conv1\.(weight|bias)", r"conv.\1"),)

    def _kernel(self, feature: FeatureMap) -> int:
        if self.values["kernel"] or not self.values["adaptive"]:
            return int(self.values["kernel"] or 3)
        steps = int((log2(feature.channels) + 1) / 2)
        return max(steps if steps % 2 else steps + 1, 3)

    def check(self, feature: FeatureMap) -> None:
        kernel = self._kernel(feature)
        require_odd(self, "kernel", kernel, ": another would change the number of channels")
        if self.variant == "timm-ceca" and kernel // 2 > feature.channels:
            raise BlockError(
                f"{feature.label} has {feature.channels} channels; a kernel of {kernel} goes round that ring twice"
            )

    def warnings(self, feature: FeatureMap) -> list[str]:
        given = self.values["kernel"]
        return [f"adaptive has no effect: the kernel is given as {given}"] if given and self.flag("adaptive") else []

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return layer_shapes({"conv": (1, 1, self._kernel(feature))}, bias=self.flag("bias"))

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if not self.flag("bias"):
            raise self.no_identity("has no bias and cannot leave its input as it is (it can only halve it)")
        return self.with_biases(feature, {"conv": SATURATED})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if "conv.weight" not in shapes:
            return {}
        return {"kernel": shapes["conv.weight"][-1], "bias": "conv.bias" in shapes}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return ("band",) if self.variant == "timm-ceca" else ("band", "row")

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        """For TensorRT the form without a Reshape, as long as its weight is small; for a DLA in any case."""
        if t.target == "dla":
            return "band"
        if "row" in lowerings and (t.target == "onnxruntime" or t.feature.channels > _BAND_UP_TO):
            return "row"
        return "band"

    def emit(self, t: Template, lowering: str) -> Variable:
        means, channels = t.mean_hw(t.x), t.feature.channels
        bias = self.flag("bias")
        if lowering == "band":
            weight = t.constant(self._band(t), "conv.weight")
            shift = t.constant(np.full(channels, t.kept("conv.bias")), "conv.bias") if bias else None
            return t.mul(t.x, t.sigmoid(t.conv(means, weight, shift)))
        kernel = self._kernel(t.feature)
        # onnxruntime computes sixteen channels where there are two axes after them, and one where there is one
        ones = (1, 1) if t.target == "onnxruntime" else (1, 1, 1)
        row = t.op("Reshape", means, t.integers([0, *ones[1:], channels], "row"))
        weight, pads = t.weight("conv.weight", (*ones, kernel)), [*[0] * (len(ones) - 2), kernel // 2] * 2
        gate = t.sigmoid(t.conv(row, weight, t.weight("conv.bias") if bias else None, pads=pads))
        return t.mul(t.x, t.op("Reshape", gate, t.integers([0, channels, 1, 1], "column")))

    def _band(self, t: Template) -> Array:
        """[C, C, 1, 1]: in row c the kernel, its middle at column c."""
        channels, kernel = t.feature.channels, t.kept("conv.weight").reshape(-1)
        band = np.zeros((channels, channels))
        rows = np.arange(channels)
        for offset, value in enumerate(kernel, -(kernel.size // 2)):
            columns = rows + offset
            if self.variant == "timm-ceca":
                np.add.at(band, (rows, columns % channels), value)
            else:
                inside = (columns >= 0) & (columns < channels)
                band[rows[inside], columns[inside]] = value
        return band.reshape(channels, channels, 1, 1)

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"kernel": self._kernel(feature), "circular": self.variant == "timm-ceca"}
