"""A small one-stage detector in the style of YOLOv8, to try insertions on.

The layout is the published one: a backbone of strided convolutions and C2f blocks, a pyramid pooling block, a neck that
goes up and down again, and a head without anchors that predicts distances as distributions (DFL). Layers carry the
numbers that YOLOv8 users know (8 is the last C2f of the backbone, 9 the pooling, 22 the head), so that an exported node
is called, for example, `/model.8/cv2/act/Mul`. Widths are tiny: 56 thousand weights instead of YOLOv8n's 3 million.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

WIDTHS = (8, 8, 16, 16, 32)  # channels at strides 2, 4, 8, 16, 32
STRIDES = (8, 16, 32)  # of the three maps that the head reads
CLASSES = 4
BINS = 8  # a distance is a distribution over 0 ... BINS - 1 strides

# Layers read the layer before them, except for these.
SOURCES: dict[int, tuple[int, ...]] = {11: (10, 6), 14: (13, 4), 17: (16, 12), 20: (19, 9), 22: (15, 18, 21)}


class Conv(nn.Module):
    """Convolution, BatchNorm, SiLU: [N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.bn(self.conv(x))))

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution: W' = W s and b' = b - m s with s = g / sqrt(v + eps), in float64."""
        bn = self.bn
        if not isinstance(bn, nn.BatchNorm2d):
            return
        mean, variance = cast(Tensor, bn.running_mean).double(), cast(Tensor, bn.running_var).double()
        scale = bn.weight.double() / torch.sqrt(variance + bn.eps)
        weight = self.conv.weight.double() * scale[:, None, None, None]
        bias = bn.bias.double() - mean * scale
        self.conv.weight = nn.Parameter(weight.to(self.conv.weight.dtype))
        self.conv.bias = nn.Parameter(bias.to(self.conv.weight.dtype))
        self.bn = nn.Identity()


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with a shortcut around them where asked for."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.cv2(self.cv1(x)))
        return x + y if self.shortcut else y


class C2f(nn.Module):
    """Split in two halves, pass the second through bottlenecks, keep every stage, merge by a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool = False, repeats: int = 1) -> None:
        super().__init__()
        self.hidden = outputs // 2
        self.cv1 = Conv(inputs, 2 * self.hidden)
        self.m = nn.ModuleList(Bottleneck(self.hidden, shortcut) for _ in range(repeats))
        self.cv2 = Conv((2 + repeats) * self.hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        stages = list(torch.split(self.cv1(x), [self.hidden, self.hidden], dim=1))
        for bottleneck in self.m:
            stages.append(bottleneck(stages[-1]))
        return cast(Tensor, self.cv2(torch.cat(stages, dim=1)))


class SPPF(nn.Module):
    """Three 5x5 max-poolings in a row (windows 5, 9, 13), all kept, merged by a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.m = nn.MaxPool2d(5, stride=1, padding=2)
        self.cv2 = Conv(4 * (channels // 2), channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(self.m(maps[-1]))
        return cast(Tensor, self.cv2(torch.cat(maps, dim=1)))


class Concat(nn.Module):
    """Join maps of one height and width along the channels."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, dim=1)


class DFL(nn.Module):
    """The expectation of a distribution over bins: [N, 4 * BINS, A] logits -> [N, 4, A] distances in strides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data = torch.arange(BINS, dtype=torch.float32).reshape(1, BINS, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        bins = x.reshape(len(x), 4, BINS, -1).transpose(1, 2).softmax(dim=1)
        return cast(Tensor, self.conv(bins)).reshape(len(x), 4, -1)


class Detect(nn.Module):
    """Three maps -> [N, 4 + CLASSES, A]: centre x, centre y, width, height in pixels, then a score for each class."""

    def __init__(self, widths: tuple[int, ...], hidden: int = 8) -> None:
        super().__init__()
        self.cv2 = nn.ModuleList(self._branch(width, hidden, 4 * BINS) for width in widths)
        self.cv3 = nn.ModuleList(self._branch(width, hidden, CLASSES) for width in widths)
        self.dfl = DFL()

    @staticmethod
    def _branch(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(Conv(inputs, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, outputs, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        boxes = torch.cat([self.cv2[i](x).reshape(len(x), 4 * BINS, -1) for i, x in enumerate(maps)], dim=2)
        scores = torch.cat([self.cv3[i](x).reshape(len(x), CLASSES, -1) for i, x in enumerate(maps)], dim=2)
        centres, strides = self._anchors(maps)
        before, after = torch.split(self.dfl(boxes), [2, 2], dim=1)  # distances to left and top, to right and bottom
        centre = centres + (after - before) / 2
        return torch.cat([torch.cat([centre, before + after], dim=1) * strides, scores.sigmoid()], dim=1)

    @staticmethod
    def _anchors(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the cells' centres in strides, [1, 2, A], and each cell's stride in pixels, [1, 1, A]."""
        centres, strides = [], []
        for x, stride in zip(maps, STRIDES, strict=True):
            height, width = int(x.shape[2]), int(x.shape[3])
            rows = torch.arange(height, dtype=x.dtype) + 0.5
            columns = torch.arange(width, dtype=x.dtype) + 0.5
            centres.append(torch.stack([columns.repeat(height), rows.repeat_interleave(width)]))
            strides.append(torch.full((1, height * width), float(stride), dtype=x.dtype))
        return torch.cat(centres, dim=1)[None], torch.cat(strides, dim=1)[None]


class Detector(nn.Module):
    """Images [N, 3, H, W] in 0 ... 1, H and W multiples of 32 -> [N, 4 + CLASSES, A], A = 21 H W / 1024 cells."""

    def __init__(self) -> None:
        super().__init__()
        p1, p2, p3, p4, p5 = WIDTHS
        self.model = nn.ModuleList(
            [
                Conv(3, p1, 3, 2),  # 0
                Conv(p1, p2, 3, 2),  # 1
                C2f(p2, p2, shortcut=True),  # 2
                Conv(p2, p3, 3, 2),  # 3
                C2f(p3, p3, shortcut=True),  # 4
                Conv(p3, p4, 3, 2),  # 5
                C2f(p4, p4, shortcut=True),  # 6
                Conv(p4, p5, 3, 2),  # 7
                C2f(p5, p5, shortcut=True),  # 8
                SPPF(p5),  # 9
                nn.Upsample(scale_factor=2, mode="nearest"),  # 10
                Concat(),  # 11
                C2f(p5 + p4, p4),  # 12
                nn.Upsample(scale_factor=2, mode="nearest"),  # 13
                Concat(),  # 14
                C2f(p4 + p3, p3),  # 15: stride 8
                Conv(p3, p3, 3, 2),  # 16
                Concat(),  # 17
                C2f(p3 + p4, p4),  # 18: stride 16
                Conv(p4, p4, 3, 2),  # 19
                Concat(),  # 20
                C2f(p4 + p5, p5),  # 21: stride 32
                Detect((p3, p4, p5)),  # 22
            ]
        )

    def forward(self, images: Tensor) -> Tensor:
        outputs = [images]  # outputs[i + 1] is what layer i gave
        for index, layer in enumerate(self.model):
            sources = SOURCES.get(index)
            outputs.append(layer([outputs[i + 1] for i in sources] if sources else outputs[-1]))
        return outputs[-1]

    def fuse(self) -> Detector:
        """Fold every BatchNorm into its convolution, in place."""
        for module in self.modules():
            if isinstance(module, Conv):
                module.fuse()
        return self
