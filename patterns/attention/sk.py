"""SK: convolutions of several sizes side by side, and a softmax over them for every channel.

Li et al., "Selective Kernel Networks", CVPR 2019, arXiv:1903.06586.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes

from .catalogue import CatalogueBlock, bn_eps
from .layers import conv_bn, linear
from .transformer import cut, softmax
from .widths import odd_sizes, require_divisor


@dataclass(frozen=True)
class _Path:
    """One of the convolutions, with its BatchNorm."""

    conv: str
    bn: str
    kernel: int
    dilation: int = 1
    grouped: bool = False


_PATHS = {
    "paper": tuple(_Path(f"convs.{i}.0", f"convs.{i}.1", 3, dilation=i + 1, grouped=True) for i in range(2)),
    "official": (_Path("conv2", "bn2", 3), _Path("conv2g", "bn2g", 3, grouped=True)),
    "timm": tuple(_Path(f"paths.{i}.conv", f"paths.{i}.bn", 3, dilation=i + 1, grouped=True) for i in range(2)),
}
_EXTERNAL, _EXTERNAL_KERNELS = "external-attention", "1,3,5,7"
_REDUCE = {
    "paper": ("fc.0", "fc.1"),
    "official": ("conv_fc1", "bn_fc1"),
    _EXTERNAL: ("fc", ""),
    "timm": ("attn.fc_reduce", "attn.bn"),
}
"""variant -> prefixes of the first layer of the choice and of its BatchNorm"""
_SELECT = {"paper": ("fcs.0", "fcs.1"), "official": ("conv_fc2",), "timm": ("attn.fc_select",)}
"""variant -> prefixes of what makes the logits of both paths, in two layers or in one"""


class SelectiveKernel(CatalogueBlock):
    """Of two paths a softmax is sigmoid(z1 - z2), and one convolution with the difference of the weights gives z1 - z2.

    All BatchNorms are folded.
    """

    name = "sk"
    title = "Selective Kernel"
    demand = 22
    paper = "Selective Kernel Networks, CVPR 2019, arXiv:1903.06586"
    reference = "implus/SKNet, models/sknet50.prototxt; official: resnet_sk.py in PytorchInsight, of the same author"
    formula = "y = sum over i of softmax_i(select(reduce(mean over H, W of sum d_i))) * d_i, d_i = relu(BN(conv_i(x)))"
    untrained = "not a gate: convolutions, times about 0.3"
    variants: ClassVar[dict[str, str]] = {
        "paper": "3x3 and 3x3 of dilation 2, in 32 groups; the choice as in official, C -> max(32, C/16) -> 2C",
        "official": "3x3, and 3x3 in 32 groups; the choice by 1x1 convolutions C -> C/16 with BatchNorm and ReLU -> 2C",
        _EXTERNAL: "1x1, 3x3, 5x5, 7x7 with biases; linear layers C -> max(32, C/16) -> C for each",
        "timm": "timm's SelectiveKernel: 3x3 and 3x3 of dilation 2, each on one half of the channels",
    }
    formerly = "official"
    settings = (
        Setting("hidden", int, None, "hidden channels of the choice, else as the variant says", minimum=1),
        Setting(
            "groups",
            int,
            None,
            "groups of the convolutions that have them, else 32 (external-attention and timm: 1)",
            minimum=1,
            later=("timm",),
        ),
        Setting("bias", bool, False, "whether the last layers have biases, as in PyTorch ports", variants=("paper",)),
        Setting(
            "split",
            bool,
            None,
            "whether each path takes half of the channels, else yes",
            variants=("timm",),
            later=True,
        ),
        Setting("kernels", str, _EXTERNAL_KERNELS, "of the paths, odd", variants=(_EXTERNAL,), later=True),
        bn_eps(),
    )

    @property
    def _paths(self) -> tuple[_Path, ...]:
        if self.variant != _EXTERNAL:
            return _PATHS[str(self.variant)]
        sizes = odd_sizes(self, "kernels", _EXTERNAL_KERNELS)
        return tuple(_Path(f"convs.{i}.conv", f"convs.{i}.bn", size, grouped=True) for i, size in enumerate(sizes))

    @property
    def _split(self) -> bool:
        """Whether each path takes half of the channels."""
        return self.variant == "timm" and self.values["split"] is not False

    def _groups(self, path: _Path) -> int:
        default = 32 if self.variant in ("paper", "official") else 1
        return int(self.values.get("groups") or default) if path.grouped else 1

    def default_hidden(self, feature: FeatureMap) -> int:
        channels = feature.channels
        if self.variant in ("paper", _EXTERNAL):
            return max(32, channels // 16)
        if self.variant == "official":
            return channels // 16
        rounded = max(8, int(channels / 16 + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * channels / 16 else rounded

    def check(self, feature: FeatureMap) -> None:
        groups = max(self._groups(path) for path in self._paths)
        require_divisor(feature, groups, "groups")
        if self._split and feature.channels % (2 * groups):
            halves = "halves them" if groups == 1 else f"takes half of them in {groups} groups"
            raise BlockError(f"{feature.label} has {feature.channels} channels, and sk[timm] {halves}")
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
            width = channels // (2 if self._split else 1) // self._groups(path)
            shape = (channels, width, path.kernel, path.kernel)
            shapes |= layer_shapes({path.conv: shape}, bias=self.variant == _EXTERNAL)
            shapes |= bn_shapes(path.bn, channels)
        reduce, bn = _REDUCE[str(self.variant)]
        if self.variant == _EXTERNAL:
            heads = {f"fcs.{i}": (channels, hidden) for i in range(len(self._paths))}
            return shapes | layer_shapes({reduce: (hidden, channels), **heads})
        shapes[f"{reduce}.weight"] = (hidden, channels, 1, 1)
        select = _SELECT[str(self.variant)]
        last = dict.fromkeys(select, (2 * channels // len(select), hidden, 1, 1))
        return shapes | bn_shapes(bn, hidden) | layer_shapes(last, bias=self.flag("bias"))

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        reduce, _ = _REDUCE[str(self.variant)]
        if f"{reduce}.weight" in shapes:
            found["hidden"] = shapes[f"{reduce}.weight"][0]
        if self.variant == "paper" and "fcs.0.weight" in shapes:
            found["bias"] = "fcs.0.bias" in shapes
        if self.variant == _EXTERNAL:
            sizes = list(takewhile(bool, (shapes.get(f"convs.{i}.conv.weight", ())[2:3] for i in count())))
            found |= {"kernels": ",".join(str(size) for (size,) in sizes)} if sizes else {}
        grouped = next((shapes.get(f"{path.conv}.weight") for path in self._paths if path.grouped), None)
        if grouped:
            parts = grouped[0] // grouped[1]
            if self.variant == "timm":
                # half of the channels, or all of them in two groups: timm's models have the former
                known = parts > 1 and self.values["split"] is not None
                found["split"] = self._split if known else parts == 2
                parts = parts // 2 if found["split"] else parts
            found["groups"] = parts
        return found

    def emit(self, t: Template, lowering: str) -> Variable:
        maps = [self._path(t, number, path) for number, path in enumerate(self._paths)]
        squeezed = t.mean_hw(maps[0])
        for other in maps[1:]:
            squeezed = t.add(squeezed, t.mean_hw(other))
        if self.variant != _EXTERNAL:
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
        reduce, bn = _REDUCE[str(self.variant)]
        hidden = t.relu(conv_bn(t, squeezed, reduce, bn, self.number("bn_eps")))
        select = _SELECT[str(self.variant)]
        parts = ("weight", "bias") if self.flag("bias") else ("weight",)
        difference = []
        for part in parts:
            first, second = np.split(np.concatenate([t.values(f"{layer}.{part}") for layer in select]), 2)
            difference.append(t.constant(first - second, f"{select[0]}.{part}"))
        return t.sigmoid(t.conv(hidden, *difference))

    def _shares(self, t: Template, squeezed: Variable) -> list[Variable]:
        hidden = linear(t, squeezed, "fc")
        logits = [linear(t, hidden, f"fcs.{i}") for i in range(len(self._paths))]
        # along the last axis a softmax is the same in every opset
        shares = softmax(t, t.op("Concat", *logits, axis=3), 4)
        return [cut(t, shares, 3, i, i + 1) for i in range(len(logits))]

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"groups": max(self._groups(path) for path in self._paths), "split": self._split}
