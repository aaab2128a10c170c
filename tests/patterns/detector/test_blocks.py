"""Blocks as people build them are found as one block; what only looks like them is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.patterns.detector.built import Bottleneck, Conv, Gate, Residual, recognised
from tests.recognition.families.yolov7 import SPPCSPTiny

C = 16


class Branches(nn.Module):
    """Branches side by side, joined by a concatenation, and what is behind it."""

    def __init__(self, *branches: nn.Module, then: nn.Module | None = None) -> None:
        super().__init__()
        self.branches, self.then = nn.ModuleList(branches), then or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.then(torch.cat([branch(x) for branch in self.branches], 1))  # type: ignore[no-any-return]


class Chain(nn.Module):
    """A chain of links of which some are joined: by their numbers, 0 is what enters."""

    def __init__(self, *links: nn.Module, joined: tuple[int, ...], then: nn.Module | None = None) -> None:
        super().__init__()
        self.links, self.joined, self.then = nn.ModuleList(links), joined, then or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for link in self.links:
            maps.append(link(maps[-1]))
        return self.then(torch.cat([maps[i] for i in self.joined], 1))  # type: ignore[no-any-return]


class Halves(nn.Module):
    """cv1 split in two, links behind one half, cv2 over what they give; ``kept``: how often the halves stay."""

    def __init__(self, *links: nn.Module, wide: int, gelan: bool, first: int = C // 2) -> None:
        super().__init__()
        self.cv1, self.cv2, self.links = Conv(C, C), Conv(wide, C), nn.ModuleList(links)
        self.gelan, self.first = gelan, first

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.cv1(x).split((self.first, C - self.first), 1)
        if not self.gelan:
            return self.cv2(torch.cat((self.links[0](left), right), 1))  # type: ignore[no-any-return]
        maps = [left, right]
        for link in self.links:
            maps.append(link(maps[-1]))
        return self.cv2(torch.cat(maps, 1))  # type: ignore[no-any-return]


class ADown(nn.Module):
    def __init__(self, smooth: int = 2) -> None:
        super().__init__()
        self.smooth = nn.AvgPool2d(smooth, 1, 0)
        self.cv1, self.cv2 = Conv(C // 2, C, 3, 2), nn.Sequential(nn.MaxPool2d(3, 2, 1), Conv(C // 2, C))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.smooth(x).chunk(2, 1)
        return torch.cat((self.cv1(left), self.cv2(right)), 1)


class ConvNeXt(nn.Module):
    def __init__(self, groups: int = C, scale: bool = True) -> None:
        super().__init__()
        self.dw, self.norm = nn.Conv2d(C, C, 7, padding=3, groups=groups), nn.LayerNorm(C)
        self.mlp = nn.Sequential(nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))
        self.gamma = nn.Parameter(torch.rand(C, 1, 1)) if scale else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.dw(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + (y if self.gamma is None else self.gamma * y)  # type: ignore[no-any-return]


class SPPCSPC(nn.Module):
    def __init__(self, pools: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        self.before = nn.Sequential(Conv(C, C), Conv(C, C, 3), Conv(C, C))
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in pools)
        self.after, self.cv2, self.cv7 = (
            nn.Sequential(Conv(C * (1 + len(pools)), C), Conv(C, C, 3)),
            Conv(C, C),
            Conv(2 * C, C),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        y = self.after(torch.cat([y, *(pool(y) for pool in self.pools)], 1))
        return self.cv7(torch.cat((y, self.cv2(x)), 1))  # type: ignore[no-any-return]


class Focus(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(4 * C, C, 3)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(corners, 1))  # type: ignore[no-any-return]


def c3(c: int, link: Callable[[int], nn.Module] = Bottleneck) -> nn.Module:
    return Branches(nn.Sequential(Conv(c, c), link(c)), Conv(c, c), then=Conv(2 * c, c))


def ghost(c1: int, c2: int, act: type[nn.Module] | None = nn.ReLU, groups: int | None = None) -> nn.Module:
    half = c2 // 2
    cheap = Conv(half, half, 5, g=half if groups is None else groups, act=act)
    return nn.Sequential(Conv(c1, half, act=act), Branches(nn.Identity(), cheap))


def ghost_bottleneck(c: int) -> nn.Module:
    return Residual(nn.Sequential(ghost(c, c), ghost(c, c, None)))


def bottleneck_csp(norm: bool = True) -> nn.Module:
    long = nn.Sequential(Conv(C, C), Bottleneck(C), nn.Conv2d(C, C, 1, bias=False))
    joined: list[nn.Module] = [nn.BatchNorm2d(2 * C)] if norm else []
    return Branches(long, nn.Conv2d(C, C, 1, bias=False), then=nn.Sequential(*joined, nn.SiLU(), Conv(2 * C, C)))


class ELAN(nn.Module):
    def __init__(self, links: int, step: int, act: type[nn.Module] | None = nn.SiLU) -> None:
        super().__init__()
        self.cv1, self.cv2, self.step = Conv(C, C), Conv(C, C), step
        self.links = nn.ModuleList(Conv(C, C, 3, act=act) for _ in range(links))
        self.last = Conv(C * (2 + links // step), C)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.cv2(x)]
        for link in self.links:
            maps.append(link(maps[-1]))
        return self.last(torch.cat((*maps[:: -self.step], self.cv1(x)), 1))  # type: ignore[no-any-return]


def gelan(link: Callable[[], nn.Module], first: int = C // 2) -> nn.Module:
    return Halves(link(), link(), wide=2 * C if first == C // 2 else first + 3 * (C - first), gelan=True, first=first)


def repcsp_conv() -> nn.Module:
    return nn.Sequential(c3(C // 2), Conv(C // 2, C // 2, 3))


def resnet(groups: int = 1, gate: nn.Module | None = None, gate_last: bool = False) -> nn.Module:
    body = [Conv(C, C, act=nn.ReLU), Conv(C, C, 3, g=groups, act=nn.ReLU), Conv(C, C, act=None)]
    body[len(body) if gate_last else 2 : 2] = [gate] if gate is not None and not gate_last else []  # type: ignore[list-item]
    return Residual(nn.Sequential(*body, *([gate] if gate is not None and gate_last else [])), act=nn.ReLU())


def osa(squeeze: int = 1, gated: bool = True) -> nn.Module:
    behind = nn.Sequential(Conv(4 * C, C, squeeze), *([Gate(C)] if gated else []))
    return Chain(*(Conv(C, C, 3) for _ in range(3)), joined=(0, 1, 2, 3), then=behind)


def fire(second: int = 3) -> nn.Module:
    return nn.Sequential(Conv(C, 8, act=nn.ReLU), Branches(Conv(8, C, act=nn.ReLU), Conv(8, C, second, act=nn.ReLU)))


def downc(stride: int = 2) -> nn.Module:
    return Branches(nn.Sequential(Conv(C, C), Conv(C, C, 3, 2)), nn.Sequential(nn.MaxPool2d(2, stride), Conv(C, C)))


def fused_mbconv(wide: int = 4 * C) -> nn.Module:
    return Residual(nn.Sequential(Conv(C, wide, 3), Conv(wide, C, act=None)))


def plain(c: int) -> Callable[[], nn.Module]:
    return lambda: Conv(c, c, 3)


WHOLE: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "C2": ("C2", lambda: Halves(Bottleneck(8), wide=C, gelan=False)),
    "BottleneckCSP": ("BottleneckCSP", bottleneck_csp),
    "ELAN1": ("ELAN1", lambda: gelan(plain(8))),
    "RepNCSPELAN4": ("RepNCSPELAN4", lambda: gelan(repcsp_conv)),
    "ADown": ("ADown", ADown),
    "AConv": ("AConv", lambda: nn.Sequential(nn.AvgPool2d(2, 1, 0), Conv(C, C, 3, 2))),
    "DownC": ("DownC", downc),
    "GhostConv": ("GhostConv", lambda: ghost(C, C)),
    "GhostBottleneck": ("GhostBottleneck", lambda: ghost_bottleneck(C)),
    "C3Ghost": ("C3Ghost", lambda: c3(C, ghost_bottleneck)),
    "ELAN of YOLOv7": ("ELAN", lambda: ELAN(4, 2)),
    "ELAN of YOLOv7-tiny": ("ELAN", lambda: ELAN(2, 1)),
    "ELAN of YOLOv7's neck": ("ELAN", lambda: ELAN(4, 1)),
    "SPPCSPC": ("SPPCSPC", SPPCSPC),
    "SPPCSPC of YOLOv7-tiny": ("SPPCSPC", lambda: SPPCSPTiny(C, C, nn.SiLU)),
    "ConvNeXtBlock": ("ConvNeXtBlock", ConvNeXt),
    "ConvNeXtBlock without scale": ("ConvNeXtBlock", lambda: ConvNeXt(scale=False)),
    "Focus": ("Focus", Focus),
    "ResNeXt": ("ResNetBottleneck", lambda: resnet(4)),
    "RegNetY": ("ResNetBottleneck", lambda: resnet(4, Gate(C))),
    "SE-ResNet": ("ResNetBottleneck", lambda: resnet(1, Gate(C), gate_last=True)),
    "OSABlock": ("OSABlock", osa),
    "OSABlock without gate": ("OSABlock", lambda: osa(gated=False)),
    "Fire": ("Fire", fire),
    "FusedMBConv": ("FusedMBConv", fused_mbconv),
    "Conv with GroupNorm": (
        "Conv",
        lambda: nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.GroupNorm(4, C), nn.ReLU()),
    ),
    "Conv with InstanceNorm": (
        "Conv",
        lambda: nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.InstanceNorm2d(C, affine=True), nn.ReLU()),
    ),
}
NEAR: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "C2, unequal parts": ("C2", lambda: Halves(Bottleneck(6), wide=C, gelan=False, first=6)),
    "BottleneckCSP, not normalised": ("BottleneckCSP", lambda: bottleneck_csp(norm=False)),
    "ELAN1, unequal parts": ("ELAN1", lambda: gelan(plain(10), first=6)),
    "ELAN1 is not GELAN": ("RepNCSPELAN4", lambda: gelan(plain(8))),
    "ADown, means over 3x3": ("ADown", lambda: ADown(3)),
    "AConv, no stride": ("AConv", lambda: nn.Sequential(nn.AvgPool2d(2, 1, 0), Conv(C, C, 3, 1))),
    "GhostConv, the cheap half dense": ("GhostConv", lambda: ghost(C, C, groups=1)),
    "GhostBottleneck, one of two": ("GhostBottleneck", lambda: Residual(nn.Sequential(ghost(C, C), Conv(C, C)))),
    "C3 is not C3Ghost": ("C3Ghost", lambda: c3(C)),
    "ELAN, an odd step": ("ELAN", lambda: ELAN(6, 3)),
    "ELAN, not activated": ("ELAN", lambda: ELAN(4, 2, act=None)),
    "SPPCSPC, two pools": ("SPPCSPC", lambda: SPPCSPC((5, 9))),
    "ConvNeXtBlock, not depthwise": ("ConvNeXtBlock", lambda: ConvNeXt(groups=1)),
    "OSABlock, squeezed by 3x3": ("OSABlock", lambda: osa(3)),
    "Fire, both 1x1": ("Fire", lambda: fire(1)),
    "FusedMBConv, not wider": ("FusedMBConv", lambda: fused_mbconv(C)),
    "a Bottleneck is no FusedMBConv": ("FusedMBConv", lambda: Bottleneck(C)),
    "ResNet, no activation behind the sum": ("ResNetBottleneck", lambda: Residual(resnet().body)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("form", WHOLE)
def test_blocks_are_found_whole(form: str) -> None:
    kind, make = WHOLE[form]
    tree = recognised(make())
    found = [block.type for block in tree.blocks]
    assert found == ["Conv", kind], "the convolution in front, and one block"
    assert sum(len(block.nodes) for block in tree.blocks) == len(tree.view.active) - 1, "all but the MaxPool"


@pytest.mark.parametrize("form", NEAR)
def test_what_only_looks_like_a_block_is_none(form: str) -> None:
    kind, make = NEAR[form]
    assert recognised(make()).of_type(kind) == []


@pytest.mark.parametrize("opset", [11, 13])
def test_halves_in_older_opsets(opset: int) -> None:
    assert recognised(ADown(), opset=opset).of_type("ADown")
