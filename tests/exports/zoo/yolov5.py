"""YOLOv5 (release 6) with the head of its own repository: anchors, a grid, one sigmoid over everything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.exports.zoo.layers import PAFPN, Conv, Detector, grid

CLASSES = 80
STRIDES = (8, 16, 32)
ANCHORS = (  # pixels: width, height; three a level
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


class Bottleneck(nn.Module):
    """1 x 1, then 3 x 3, and the shortcut where there is one."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Module):
    """Two 1 x 1 branches, bottlenecks on one of them, joined by a third 1 x 1."""

    def __init__(self, inputs: int, outputs: int, n: int, shortcut: bool) -> None:
        super().__init__()
        hidden = outputs // 2
        self.cv1 = Conv(inputs, hidden)
        self.cv2 = Conv(inputs, hidden)
        self.cv3 = Conv(2 * hidden, outputs)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPPF(nn.Module):
    """Three windows of 5 one behind the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.cv2 = Conv(channels * 2, channels)
        self.m = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        first = self.m(x)
        second = self.m(first)
        return self.cv2(torch.cat((x, first, second, self.m(second)), 1))


class Backbone(nn.Module):
    """A 6 x 6 stem, four stages, pooling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = Conv(3, width, 6, 2, padding=2)
        stages = []
        for stage, n in enumerate((1, 2, 3, 1)):
            inputs, outputs = width * 2**stage, width * 2 ** (stage + 1)
            stages.append(nn.Sequential(Conv(inputs, outputs, 3, 2), C3(outputs, outputs, n, True)))
        self.stages = nn.ModuleList(stages)
        self.sppf = SPPF(width * 16)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [maps[2], maps[3], self.sppf(maps[4])]


class Detect(nn.Module):
    """One 1 x 1 a level for three anchors; [N, cells * 3, 5 + classes] in pixels."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.no = CLASSES + 5
        self.m = nn.ModuleList(nn.Conv2d(width, 3 * self.no, 1) for width in widths)
        self.register_buffer("anchors", torch.tensor(ANCHORS).float().reshape(3, 1, 3, 1, 1, 2))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = []
        for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            height, width = x.shape[2:]
            x = self.m[level](x).view(-1, 3, self.no, height, width).permute(0, 1, 3, 4, 2).contiguous()
            xy, wh, rest = x.sigmoid().split((2, 2, CLASSES + 1), 4)
            cells = grid(height, width).reshape(1, 1, height, width, 2) - 0.5
            boxes = ((xy * 2 + cells) * stride, (wh * 2) ** 2 * self.anchors[level])
            found.append(torch.cat((*boxes, rest), 4).view(-1, 3 * height * width, self.no))
        return torch.cat(found, 1)


def yolov5() -> Detector:
    """Return a detector of the widths and depths of YOLOv5n."""
    widths = (64, 128, 256)
    neck = PAFPN(widths, lambda i, o: C3(i, o, 1, False), lambda c: Conv(c, c, 3, 2))
    return Detector(Backbone(16), neck, Detect(widths))
