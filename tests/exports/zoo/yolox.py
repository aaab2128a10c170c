"""YOLOX (Ge et al., 2021): CSPDarknet with a Focus stem, PAFPN, a decoupled anchor-free head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.exports.zoo.layers import PAFPN, Conv, Detector, SeparableConv, SPPBottleneck, grid

CLASSES = 80
STRIDES = (8, 16, 32)


class Focus(nn.Module):
    """Space to depth: every second row and column, four times, side by side; then a convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(12, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        corners = (x[..., i::2, j::2] for j in (0, 1) for i in (0, 1))
        return self.conv(torch.cat(list(corners), 1))


class Bottleneck(nn.Module):
    """1 x 1, then 3 x 3, and the shortcut where there is one."""

    def __init__(self, channels: int, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels)
        self.conv2 = (SeparableConv if depthwise else Conv)(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    """Two 1 x 1 branches, bottlenecks on one of them, joined by a third 1 x 1."""

    def __init__(self, inputs: int, outputs: int, n: int, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        hidden = outputs // 2
        self.conv1 = Conv(inputs, hidden)
        self.conv2 = Conv(inputs, hidden)
        self.conv3 = Conv(2 * hidden, outputs)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut, depthwise) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))


class CSPDarknet(nn.Module):
    """Four stages; the maps of strides 8, 16 and 32 leave it."""

    def __init__(self, width: int, depth: int, depthwise: bool) -> None:
        super().__init__()
        conv = SeparableConv if depthwise else Conv
        self.stem = Focus(width)
        for stage, n in ((2, depth), (3, 3 * depth), (4, 3 * depth), (5, depth)):
            inputs, outputs = width * 2 ** (stage - 2), width * 2 ** (stage - 1)
            pooling = [SPPBottleneck(outputs, outputs)] if stage == 5 else []
            layer = CSPLayer(outputs, outputs, n, stage != 5, depthwise)
            setattr(self, f"dark{stage}", nn.Sequential(conv(inputs, outputs, 3, 2), *pooling, layer))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for stage in (self.dark2, self.dark3, self.dark4, self.dark5):
            maps.append(stage(maps[-1]))
        return maps[2:]


class YOLOXHead(nn.Module):
    """Classes on one branch, box and objectness on the other; decoded to pixels, [N, cells, 5 + classes]."""

    def __init__(self, widths: Sequence[int], hidden: int, depthwise: bool) -> None:
        super().__init__()
        conv = SeparableConv if depthwise else Conv

        def branch() -> nn.Sequential:
            return nn.Sequential(conv(hidden, hidden, 3), conv(hidden, hidden, 3))

        self.stems = nn.ModuleList(Conv(width, hidden) for width in widths)
        self.cls_convs = nn.ModuleList(branch() for _ in widths)
        self.reg_convs = nn.ModuleList(branch() for _ in widths)
        self.cls_preds = nn.ModuleList(nn.Conv2d(hidden, CLASSES, 1) for _ in widths)
        self.reg_preds = nn.ModuleList(nn.Conv2d(hidden, 4, 1) for _ in widths)
        self.obj_preds = nn.ModuleList(nn.Conv2d(hidden, 1, 1) for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = []
        for level, x in enumerate(maps):
            x = self.stems[level](x)
            classes = self.cls_preds[level](self.cls_convs[level](x))
            x = self.reg_convs[level](x)
            found.append(
                torch.cat([self.reg_preds[level](x), self.obj_preds[level](x).sigmoid(), classes.sigmoid()], 1)
            )
        cells = torch.cat([grid(x.shape[2], x.shape[3]) for x in found])
        strides = torch.cat([torch.full((x.shape[2] * x.shape[3], 1), s) for s, x in zip(STRIDES, found, strict=True)])
        y = torch.cat([x.flatten(2) for x in found], 2).permute(0, 2, 1)
        return torch.cat([(y[..., :2] + cells) * strides, y[..., 2:4].exp() * strides, y[..., 4:]], -1)


def yolox(width: int, depthwise: bool) -> Detector:
    """Return YOLOX with `width` channels behind the stem: 24 is YOLOX-Tiny, 16 with depthwise is YOLOX-Nano."""
    widths = (4 * width, 8 * width, 16 * width)
    conv = SeparableConv if depthwise else Conv
    neck = PAFPN(widths, lambda i, o: CSPLayer(i, o, 1, False, depthwise), lambda c: conv(c, c, 3, 2))
    return Detector(CSPDarknet(width, 1, depthwise), neck, YOLOXHead(widths, 4 * width, depthwise))
