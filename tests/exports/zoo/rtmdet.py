"""RTMDet (Lyu et al., 2022): CSPNeXt with 5 x 5 depthwise convolutions, CSPNeXtPAFPN, SepBN head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.exports.zoo.layers import PAFPN, Conv, Detector, SeparableConv, SPPBottleneck, grid

CLASSES = 80
STRIDES = (8, 16, 32)


class CSPNeXtBlock(nn.Module):
    """3 x 3, then a separable 5 x 5, and the shortcut where there is one."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = SeparableConv(channels, channels, 5)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class ChannelAttention(nn.Module):
    """A gate of one layer and a hard sigmoid from the mean of the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Conv2d(channels, channels, 1)
        self.act = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.act(self.fc(self.global_avgpool(x)))


class CSPLayer(nn.Module):
    """Two 1 x 1 branches, blocks on one of them, attention in the backbone, a third 1 x 1."""

    def __init__(self, inputs: int, outputs: int, n: int, shortcut: bool, attention: bool) -> None:
        super().__init__()
        hidden = outputs // 2
        self.main_conv = Conv(inputs, hidden)
        self.short_conv = Conv(inputs, hidden)
        self.blocks = nn.Sequential(*(CSPNeXtBlock(hidden, shortcut) for _ in range(n)))
        self.attention = ChannelAttention(2 * hidden) if attention else nn.Identity()
        self.final_conv = Conv(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], 1)
        return self.final_conv(self.attention(joined))


class CSPNeXt(nn.Module):
    """Stem of three convolutions, four stages; the maps of strides 8, 16 and 32 leave it."""

    def __init__(self, width: int, depths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, width // 2, 3, 2), Conv(width // 2, width // 2, 3), Conv(width // 2, width, 3)
        )
        for stage, n in enumerate(depths, 1):
            inputs, outputs = width * 2 ** (stage - 1), width * 2**stage
            pooling = [SPPBottleneck(outputs, outputs)] if stage == 4 else []
            layer = CSPLayer(outputs, outputs, n, stage != 4, True)
            setattr(self, f"stage{stage}", nn.Sequential(Conv(inputs, outputs, 3, 2), *pooling, layer))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            maps.append(stage(maps[-1]))
        return maps[2:]


class CSPNeXtPAFPN(PAFPN):
    """Path aggregation with a 3 x 3 to one width behind every output."""

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__(widths, lambda i, o: CSPLayer(i, o, 1, False, False), lambda c: Conv(c, c, 3, 2))
        self.out_convs = nn.ModuleList(Conv(width, outputs, 3) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [conv(x) for conv, x in zip(self.out_convs, super().forward(maps), strict=True)]


class RTMDetSepBNHead(nn.Module):
    """Convolutions that the levels share, with a BatchNorm of each level's own; boxes in pixels, scores."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def branch() -> nn.Sequential:
            return nn.Sequential(Conv(width, width, 3), Conv(width, width, 3))

        self.cls_convs = nn.ModuleList(branch() for _ in STRIDES)
        self.reg_convs = nn.ModuleList(branch() for _ in STRIDES)
        for levels in (self.cls_convs, self.reg_convs):
            for level in levels:
                for own, first in zip(level, levels[0], strict=True):
                    own.conv = first.conv
        self.rtm_cls = nn.ModuleList(nn.Conv2d(width, CLASSES, 1) for _ in STRIDES)
        self.rtm_reg = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in STRIDES)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = []
        for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            scores = self.rtm_cls[level](self.cls_convs[level](x)).sigmoid()
            sides = (self.rtm_reg[level](self.reg_convs[level](x)).relu() * stride).flatten(2).permute(0, 2, 1)
            points = grid(x.shape[2], x.shape[3]) * stride
            boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], -1)
            found.append(torch.cat([boxes, scores.flatten(2).permute(0, 2, 1)], -1))
        return torch.cat(found, 1)


def rtmdet() -> Detector:
    """Return RTMDet at the widths of its size Tiny, less deep."""
    return Detector(CSPNeXt(24, (1, 1, 1, 1)), CSPNeXtPAFPN((96, 192, 384), 96), RTMDetSepBNHead(96))
