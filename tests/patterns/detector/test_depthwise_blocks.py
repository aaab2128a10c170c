"""Blocks around depthwise convolutions: FastViT, MobileNetV4, GhostNetV2, RTMDet-nano, ShuffleNetV2, PP-OCRv3."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import SeparableConv
from tests.patterns.detector.built import Conv, Gate, Residual, recognised
from tests.recognition.families.parts import ShuffleUnit

C = 16


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(C, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class GhostModuleV2(nn.Module):
    def __init__(self, gate: Callable[[Tensor], Tensor] = torch.sigmoid) -> None:
        super().__init__()
        self.first, self.cheap = Conv(C, C // 2, act=nn.ReLU), Conv(C // 2, C // 2, 3, g=C // 2, act=nn.ReLU)
        row, column = ((1, 5), (0, 2)), ((5, 1), (2, 0))
        self.short = nn.Sequential(
            Conv(C, C, act=None), *(nn.Conv2d(C, C, k, padding=p, groups=C, bias=False) for k, p in (row, column))
        )
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        gate = self.gate(self.short(functional.avg_pool2d(x, 2)))
        return torch.cat([y, self.cheap(y)], 1) * functional.interpolate(gate, size=x.shape[2:], mode="nearest")


class RepMixer(nn.Module):
    """Not fused."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.point = Conv(C, C, 3, g=C, act=None), Conv(C, C, g=C, act=None)
        self.identity, self.norm, self.scale = nn.BatchNorm2d(C), nn.BatchNorm2d(C), Scale()

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.point(x) + self.identity(x) + self.large(x)
        return x + self.scale(mixed - self.norm(x))


class RSELayer(nn.Module):
    def __init__(self, shortcut: bool = True) -> None:
        super().__init__()
        self.conv, self.gate, self.shortcut = nn.Conv2d(C, C, 1, bias=False), Gate(C), shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.gate(x) if self.shortcut else self.gate(x)


def mlp(kernel: int = 7) -> nn.Module:
    layers = nn.Conv2d(C, 3 * C, 1), nn.GELU(), nn.Conv2d(3 * C, C, 1), Scale()
    return Residual(nn.Sequential(Conv(C, C, kernel, g=C, act=None), *layers))


def universal(start: int | None = C, middle: bool = True) -> nn.Module:
    depth = [Conv(2 * C, 2 * C, 5, g=2 * C, act=nn.ReLU)] if middle else []
    body = (Conv(C, 2 * C, act=nn.ReLU), *depth, Conv(2 * C, C, act=None))
    return Residual(nn.Sequential(*([Conv(C, C, 3, g=start, act=None)] if start else []), *body))


class Cross(nn.Module):
    """CSPNeXt's layer of depthwise blocks."""

    def __init__(self, gated: bool = True) -> None:
        super().__init__()
        self.main, self.short = Conv(C, C), Conv(C, C)
        self.blocks = nn.Sequential(*(Residual(nn.Sequential(*(SeparableConv(C, C, k) for k in (3, 5)))) for _ in "ab"))
        self.gate, self.last = Gate(2 * C) if gated else nn.Identity(), Conv(2 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gate(torch.cat([self.blocks(self.main(x)), self.short(x)], 1)))


class HalvingUnit(nn.Module):
    """FastestDet's: what reads it shuffles."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Sequential(Conv(C, C, 3, 2, C, None), Conv(C, C, act=nn.ReLU))
        self.main = nn.Sequential(Conv(C, C, act=nn.ReLU), Conv(C, C, 3, 2, C, None), Conv(C, C, act=nn.ReLU))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.short(x), self.main(x)], 1)


def separable(stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(C, C, 3, stride, 1, groups=C, bias=False), Conv(C, C, act=nn.ReLU))


WHOLE: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "RepMixerBlock": ("RepMixerBlock", lambda: nn.Sequential(RepMixer(), mlp())),
    "RepMixerBlock, fused": ("RepMixerBlock", lambda: nn.Sequential(Conv(C, C, 3, g=C, act=None), mlp())),
    "GhostModuleV2": ("GhostModuleV2", GhostModuleV2),
    "GhostBottleneck of GhostNetV2": (
        "GhostBottleneck",
        lambda: Residual(nn.Sequential(GhostModuleV2(), Conv(C, C, 3, 1, C, None), Ghost())),
    ),
    "RSELayer": ("RSELayer", RSELayer),
    "MobileNetV4": ("InvertedResidual", universal),
    "MobileNetV4, as ConvNeXt": ("InvertedResidual", lambda: universal(middle=False)),
    "CSPNeXt of depthwise blocks": ("CSPLayer", Cross),
    "its neck": ("C3", lambda: Cross(gated=False)),
    "SCDown of D-FINE": ("SCDown", lambda: nn.Sequential(Conv(C, C, act=None), Conv(C, C, 3, 2, C, act=None))),
    "ShuffleV2Block": ("ShuffleV2Block", lambda: ShuffleUnit(C, C, 1, nn.ReLU)),
    "ShuffleV2Block, strided": ("ShuffleV2Block", lambda: ShuffleUnit(C, C, 2, nn.ReLU)),
    "ShuffleV2Block, strided, not shuffled": ("ShuffleV2Block", HalvingUnit),
}
NEAR: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "RepMixerBlock, the mixer dense": ("RepMixerBlock", lambda: nn.Sequential(Conv(C, C, 3, act=None), mlp())),
    "RepMixerBlock, the mixer activated": ("RepMixerBlock", lambda: nn.Sequential(Conv(C, C, 3, g=C), mlp())),
    "by BatchNorm, no ConvNeXtBlock": ("ConvNeXtBlock", mlp),
    "GhostModuleV2, not gated": ("GhostModuleV2", lambda: GhostModuleV2(torch.relu)),
    "RSELayer without shortcut": ("RSELayer", lambda: RSELayer(False)),
    "MobileNetV4, the first dense": ("InvertedResidual", lambda: universal(1, middle=False)),
    "separable convolutions, no SCDown": ("SCDown", lambda: nn.Sequential(separable(1), separable(2))),
    "the same with BatchNorm and activation": (
        "SCDown",
        lambda: nn.Sequential(Conv(C, C, 3, g=C, act=nn.ReLU), Conv(C, C, act=nn.ReLU), Conv(C, C, 3, 2, C, None)),
    ),
    "ShuffleV2Block, dense": ("ShuffleV2Block", lambda: Residual(nn.Sequential(Conv(C, C), Conv(C, C, 3), Conv(C, C)))),
}


class Ghost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.cheap = Conv(C, C // 2, act=None), Conv(C // 2, C // 2, 3, g=C // 2, act=None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return torch.cat([y, self.cheap(y)], 1)


@pytest.mark.parametrize("form", WHOLE)
def test_blocks_are_found_whole(form: str) -> None:
    kind, make = WHOLE[form]
    tree = recognised(make())
    assert [block.type for block in tree.blocks] == ["Conv", kind]
    assert sum(len(block.nodes) for block in tree.blocks) == len(tree.view.active) - 1, "all but the MaxPool"


@pytest.mark.parametrize("form", NEAR)
def test_what_only_looks_like_a_block_is_none(form: str) -> None:
    kind, make = NEAR[form]
    assert recognised(make()).of_type(kind) == []
