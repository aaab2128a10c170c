"""ELA, Efficient Local Attention: a gate per row and one per column, by a convolution along each strip of means.

Xu and Wan, "ELA: Efficient Local Attention for Deep Convolutional Neural Networks", arXiv:2403.01123.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from . import norms, onnxruntime_forms
from .activations import silu
from .catalogue import CatalogueBlock
from .widths import require_odd

_EPS = 1e-5


@dataclass(frozen=True)
class _Form:
    kernel: int
    """positions of the convolution"""
    width: int | None
    """channels that one convolution group reads; None: all"""
    norm_groups: int


_FORMS = {
    "base": _Form(7, 1, 16),
    "tiny": _Form(5, 1, 32),
    "small": _Form(5, 8, 16),
    "large": _Form(7, 8, 16),
    "cv-attention": _Form(1, None, 16),
    "timm": _Form(7, 1, 1),
}


class EfficientLocalAttention(CatalogueBlock):
    """Rows and columns go through the same layers, in timm through layers of their own."""

    name = "ela"
    title = "Efficient Local Attention"
    demand = 25
    paper = "ELA: Efficient Local Attention for Deep Convolutional Neural Networks, arXiv:2403.01123"
    reference = "no code by the authors is known: the listing that blogs and forks share; timm's EfficientLocalAttn"
    formula = "y = x * sigmoid(GN(conv(mean over W))) * sigmoid(GN(conv(mean over H)))"
    untrained = "scales its input to about a third"
    variants: ClassVar[dict[str, str]] = {
        "base": "ELA-B, the common listing: depthwise, 7 positions, 16 groups of channels to normalise",
        "tiny": "ELA-T: depthwise, 5 positions, 32 groups to normalise",
        "small": "ELA-S: 8 channels at a time, 5 positions, 16 groups to normalise",
        "large": "ELA-L: 8 channels at a time, 7 positions, 16 groups to normalise",
        "cv-attention": "as in cv-attention: one dense 1x1 convolution with bias, 16 groups to normalise",
        "timm": "timm's: layers of their own for rows and columns, one group to normalise, SiLU before the sigmoid",
    }
    module_classes: ClassVar[dict[str, str]] = {"timm": "SeparateLocalAttention"}
    settings = (
        Setting(
            "kernel_size", int, None, "positions of the convolution, odd; the variant's own if not given", minimum=1
        ),
        Setting("norm_groups", int, None, "groups of channels to normalise; the variant's own if not given", minimum=1),
        Setting("skip", bool, False, "adds x to the result, timm's has_skip", variants=("timm",)),
    )
    aliases = (
        (r"con1\.weight", "conv.weight"),
        (r"GN\.(weight|bias)", r"gn.\1"),
        (r"conv1x1\.0\.(weight|bias)", r"conv.\1"),
        (r"conv1x1\.1\.(weight|bias)", r"gn.\1"),
    )

    @property
    def _form(self) -> _Form:
        return _FORMS[str(self.variant)]

    @property
    def _biased(self) -> bool:
        """Whether the convolution has a bias."""
        return self.variant == "cv-attention"

    @property
    def _kernel(self) -> int:
        return int(self.values["kernel_size"] or self._form.kernel)

    @property
    def _norm_groups(self) -> int:
        return int(self.values["norm_groups"] or self._form.norm_groups)

    @property
    def _layers(self) -> dict[str, tuple[str, str]]:
        """Side of the strip that a gate is for -> its convolution and normalisation."""
        if self.variant == "timm":
            return {"h": ("conv_h", "norm_h"), "w": ("conv_w", "norm_w")}
        return {"h": ("conv", "gn"), "w": ("conv", "gn")}

    def check(self, feature: FeatureMap) -> None:
        require_odd(self, "kernel_size", self._kernel, ": an even one would change the size")
        for parts, what in ((self._norm_groups, "groups to normalise"), (self._form.width, "channels a convolution")):
            if parts and feature.channels % parts:
                raise BlockError(
                    f"{feature.label} has {feature.channels} channels, no multiple of the {parts} {what} "
                    f"of {self.spelled}"
                )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, shapes = feature.channels, dict[str, tuple[int, ...]]()
        for side, (conv, norm) in self._layers.items():
            strip: tuple[int, ...] = (self._kernel,)
            if self.variant == "timm":
                strip = (self._kernel, 1) if side == "h" else (1, self._kernel)
            shape = (channels, self._form.width or channels, *strip)
            shapes |= layer_shapes({conv: shape}, bias=self._biased) | layer_shapes({norm: (channels,)})
        return shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if self.flag("skip"):
            return super().identity(feature)
        return self.with_biases(feature, {norm: SATURATED for _, norm in self._layers.values()})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        shape = shapes.get(f"{self._layers['h'][0]}.weight", ())
        return {"kernel_size": max(shape[2:])} if len(shape) > 2 else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return onnxruntime_forms.with_crossed(norms.lowerings(feature, opset))

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        return onnxruntime_forms.crossed_where_faster(t, lowerings[0])

    def emit(self, t: Template, lowering: str) -> Variable:
        gates, norm_form = [], lowering.split("+")[0]
        bias = t.weight("conv.bias") if self._biased else None
        for side, (conv, norm) in self._layers.items():
            axis = 2 if side == "h" else 3
            outputs, width = t.values(f"{conv}.weight").shape[:2]
            # for onnxruntime rows lie along the last axis, where its grouped convolutions are five times as fast
            turned = side == "h" and lowering.endswith(onnxruntime_forms.CROSSED)
            strip = (self._kernel, 1) if side == "h" and not turned else (1, self._kernel)
            weight = t.weight(f"{conv}.weight", (outputs, width, *strip))
            pads = [strip[0] // 2, strip[1] // 2] * 2
            context = onnxruntime_forms.strip_mean(t, 5 - axis)
            if turned:
                context = t.op("Reshape", context, t.integers([0, t.feature.channels, 1, -1], "row"))
            context = t.conv(context, weight, bias, pads=pads, group=t.feature.channels // width)
            gamma, beta = t.values(f"{norm}.weight"), t.values(f"{norm}.bias")
            context = norms.group_norm(t, context, self._norm_groups, gamma, beta, _EPS, norm_form, axis)
            gates.append(t.sigmoid(silu(t, context) if self.variant == "timm" else context))
        y = onnxruntime_forms.gated(t, t.x, gates[0], gates[1], lowering)
        return t.add(y, t.x) if self.values.get("skip") else y

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        groups = feature.channels // (self._form.width or feature.channels)
        sizes = {"kernel_size": self._kernel, "norm_groups": self._norm_groups, "conv_groups": groups}
        return {**sizes, "bias": self._biased}
