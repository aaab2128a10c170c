"""SK: convolutions of several sizes side by side, and a softmax over them for every channel.

Li et al., "Selective Kernel Networks", CVPR 2019, arXiv:1903.06586.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from .catalogue import CatalogueBlock, bn_eps
from .layers import conv_bn, linear
from .transformer import cut, softmax
from .widths import require_divisor


@dataclass(frozen=True)
class _Path:
    """One of the convolutions, with its BatchNorm."""

    conv: str
    bn: str
    kernel: int
    dilation: int = 1
    grouped: bool = False


_PATHS = {
    "official": (_Path("conv2", "bn2", 3), _Path("conv2g", "bn2g", 3, grouped=True)),
    "external-attention": tuple(
        _Path(f"convs.{i}.conv", f"convs.{i}.bn", kernel, grouped=True) for i, kernel in enumerate((1, 3, 5, 7))
    ),
    "timm": (_Path("paths.0.conv", "paths.0.bn", 3), _Path("paths.1.conv", "paths.1.bn", 3, dilation=2)),
}
_REDUCE = {
    "official": ("conv_fc1", "bn_fc1", "conv_fc2"),
    "timm": ("attn.fc_reduce", "attn.bn", "attn.fc_select"),
}
_GROUPED = ("official", "external-attention")


class SelectiveKernel(CatalogueBlock):
    """Of two paths a softmax is sigmoid(z1 - z2), and one convolution with the difference of the weights gives z1 - z2.

    All BatchNorms are folded.
    """

    name = "sk"
    title = "Selective Kernel"
    demand = 22
    paper = "Selective Kernel Networks, CVPR 2019, arXiv:1903.06586"
    reference = "implus/PytorchInsight (the paper's author), classification/models/imagenet/resnet_sk.py"
    formula = "y = sum over i of softmax_i(select(reduce(mean over H, W of sum d_i))) * d_i, d_i = relu(BN(conv_i(x)))"
    untrained = "not a gate: convolutions, times about 0.3"
    variants: ClassVar[dict[str, str]] = {
        "official": "3x3, and 3x3 in 32 groups; the choice by 1x1 convolutions C -> C/16 with BatchNorm and ReLU -> 2C",
        "external-attention": "1x1, 3x3, 5x5, 7x7 with biases; linear layers C -> max(32, C/16) -> C for each",
        "timm": "timm's SelectiveKernel: 3x3 and 3x3 of dilation 2, each on one half of the channels",
    }
    settings = (
        Setting("hidden", int, None, "hidden channels of the choice, else as the variant says", minimum=1),
        Setting(
            "groups",
            int,
            None,
            "groups of the convolution that has them, else 32 (external-attention: 1)",
            minimum=1,
            variants=_GROUPED,
        ),
        bn_eps(),
    )

    @property
    def _paths(self) -> tuple[_Path, ...]:
        return _PATHS[str(self.variant)]

    @property
    def _split(self) -> bool:
        return self.variant == "timm"

    def _groups(self, path: _Path) -> int:
        default = 32 if self.variant == "official" else 1
        return int(self.values.get("groups") or default) if path.grouped else 1

    def default_hidden(self, feature: FeatureMap) -> int:
        channels = feature.channels
        if self.variant == "external-attention":
            return max(32, channels // 16)
        if self.variant == "official":
            return channels // 16
        rounded = max(8, int(channels / 16 + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * channels / 16 else rounded

    def check(self, feature: FeatureMap) -> None:
        require_divisor(feature, max(self._groups(path) for path in self._paths), "groups")
        if self._split and feature.channels % 2:
            raise BlockError(f"{feature.label} has {feature.channels} channels, and sk[timm] halves them")
        if self.hidden(feature) < 1:
            raise BlockError(
                f"{feature.label} has {feature.channels} channels; a sixteenth of them is none: give hidden"
            )

    def warnings(self, feature: FeatureMap) -> list[str]:
        return self.many_parameters(feature, self.spelled)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden = feature.channels, self.hidden(feature)
        shapes: dict[str, tuple[int, ...]] = {}
        for path in self._paths:
            width = channels // (2 if self._split else self._groups(path))
            shape = (channels, width, path.kernel, path.kernel)
            shapes |= layer_shapes({path.conv: shape}, bias=self.variant == "external-attention")
            shapes |= bn_shapes(path.bn, channels)
        if self.variant == "external-attention":
            heads = {f"fcs.{i}": (channels, hidden) for i in range(len(self._paths))}
            return shapes | layer_shapes({"fc": (hidden, channels), **heads})
        reduce, bn, select = _REDUCE[str(self.variant)]
        shapes[f"{reduce}.weight"] = (hidden, channels, 1, 1)
        return shapes | bn_shapes(bn, hidden) | {f"{select}.weight": (2 * channels, hidden, 1, 1)}

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        reduce = "fc" if self.variant == "external-attention" else _REDUCE[str(self.variant)][0]
        if f"{reduce}.weight" in shapes:
            found["hidden"] = shapes[f"{reduce}.weight"][0]
        grouped = next((shapes.get(f"{path.conv}.weight") for path in self._paths if path.grouped), None)
        if grouped:
            found["groups"] = grouped[0] // grouped[1]
        return found

    def emit(self, t: Template, lowering: str) -> Variable:
        maps = [self._path(t, number, path) for number, path in enumerate(self._paths)]
        squeezed = t.mean_hw(maps[0])
        for other in maps[1:]:
            squeezed = t.add(squeezed, t.mean_hw(other))
        if len(maps) == 2:
            first, second = maps
            return t.add(second, t.mul(t.sub(first, second), self._share_of_first(t, squeezed)))
        shares = self._shares(t, squeezed)
        y = t.mul(maps[0], shares[0])
        for other, share in zip(maps[1:], shares[1:], strict=True):
            y = t.add(y, t.mul(other, share))
        return y

    def _path(self, t: Template, number: int, path: _Path) -> Variable:
        half = t.feature.channels // 2
        x = cut(t, t.x, 1, number * half, (number + 1) * half) if self._split else t.x
        border = path.kernel // 2 * path.dilation
        around = {"dilations": [path.dilation] * 2, "pads": [border] * 4}
        eps, groups = self.number("bn_eps"), self._groups(path)
        return t.relu(conv_bn(t, x, path.conv, path.bn, eps, **around, group=groups))

    def _share_of_first(self, t: Template, squeezed: Variable) -> Variable:
        reduce, bn, select = _REDUCE[str(self.variant)]
        hidden = t.relu(conv_bn(t, squeezed, reduce, bn, self.number("bn_eps")))
        first, second = np.split(t.values(f"{select}.weight"), 2)
        return t.sigmoid(t.conv(hidden, t.constant(first - second, f"{select}.weight")))

    def _shares(self, t: Template, squeezed: Variable) -> list[Variable]:
        hidden = linear(t, squeezed, "fc")
        logits = [linear(t, hidden, f"fcs.{i}") for i in range(len(self._paths))]
        # along the last axis a softmax is the same in every opset
        shares = softmax(t, t.op("Concat", *logits, axis=3), 4)
        return [cut(t, shares, 3, i, i + 1) for i in range(len(logits))]

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"groups": max(self._groups(path) for path in self._paths)}
