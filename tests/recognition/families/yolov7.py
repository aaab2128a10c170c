"""YOLOv7 and YOLOv7-tiny (Wang et al., 2022) as they are deployed: ELAN, max-pooling downsampling, fused RepConv."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import Conv
from tests.recognition.families.parts import Act, Marks, larger


class ELAN(nn.Module):
    """Two 1x1 convolutions, a chain of 3x3 convolutions behind the second, some of them concatenated, and a 1x1."""

    def __init__(self, inputs: int, wide: int, inner: int, outputs: int, taps: Sequence[int], act: Act) -> None:
        super().__init__()
        self.first, self.second = Conv(inputs, wide, act=act), Conv(inputs, wide, act=act)
        widths = [wide, *(inner for _ in range(max(taps)))]
        self.chain = nn.ModuleList(Conv(a, inner, 3, act=act) for a in widths[:-1])
        self.taps = taps
        self.last = Conv(wide + sum(widths[i] for i in taps), outputs, act=act)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.second(x)]
        for conv in self.chain:
            found.append(conv(found[-1]))
        return self.last(torch.cat([*(found[i] for i in reversed(self.taps)), self.first(x)], 1))


class Down(nn.Module):
    """Halves a map by a pooling and by a convolution side by side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pooled, self.narrow = Conv(inputs, outputs), Conv(inputs, outputs)
        self.strided = Conv(outputs, outputs, 3, 2)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        pooled = self.pooled(functional.max_pool2d(x, 2, 2))
        return torch.cat([self.strided(self.narrow(x)), pooled, *others], 1)


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling in one branch of a cross-stage partial block."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        c = outputs
        self.main = nn.Sequential(Conv(inputs, c), Conv(c, c, 3), Conv(c, c))
        self.behind = nn.Sequential(Conv(4 * c, c), Conv(c, c, 3))
        self.side, self.last = Conv(inputs, c), Conv(2 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.main(x)
        y = torch.cat([y, *(functional.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13))], 1)
        return self.last(torch.cat([self.behind(y), self.side(x)], 1))


class SPPCSPTiny(nn.Module):
    """The same with single 1x1 convolutions, the pooled maps first."""

    def __init__(self, inputs: int, outputs: int, act: Act) -> None:
        super().__init__()
        c = outputs
        self.side, self.main = Conv(inputs, c, act=act), Conv(inputs, c, act=act)
        self.behind, self.last = Conv(4 * c, c, act=act), Conv(2 * c, c, act=act)

    def forward(self, x: Tensor) -> Tensor:
        side, x = self.side(x), self.main(x)
        pooled = [functional.max_pool2d(x, k, 1, k // 2) for k in (13, 9, 5)]
        return self.last(torch.cat([self.behind(torch.cat([*pooled, x], 1)), side], 1))


class Anchors(nn.Module):
    """The head of YOLOv5 and YOLOv7: a 1x1 convolution a level, boxes relative to three anchors a cell."""

    def __init__(self, widths: Sequence[int], classes: int = 4) -> None:
        super().__init__()
        self.values = 5 + classes
        self.m = nn.ModuleList(nn.Conv2d(c, 3 * self.values, 1) for c in widths)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = []
        for i, (conv, x) in enumerate(zip(self.m, maps, strict=True)):
            n, _, height, width = x.shape
            y = conv(x).view(n, 3, self.values, height, width).permute(0, 1, 3, 4, 2).sigmoid()
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            cells = torch.stack((columns, rows), 2).view(1, 1, height, width, 2).float()
            centres, sizes = (y[..., :2] * 2 - 0.5 + cells) * 8 * 2**i, (y[..., 2:4] * 2) ** 2
            found.append(torch.cat((centres, sizes, y[..., 4:]), 4).view(n, -1, self.values))
        return torch.cat(found, 1)


class YOLOv7(nn.Module):
    """cfg/deploy/yolov7.yaml, narrower."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        w, act = width, nn.SiLU
        large = partial(ELAN, taps=(0, 2, 4), act=act)
        small = partial(ELAN, taps=(0, 1, 2, 3, 4), act=act)
        self.stem = nn.Sequential(Conv(3, w, 3), Conv(w, 2 * w, 3, 2), Conv(2 * w, 2 * w, 3))
        self.stage2 = nn.Sequential(Conv(2 * w, 4 * w, 3, 2), large(4 * w, 2 * w, 2 * w, 8 * w))
        self.stage3 = nn.Sequential(Down(8 * w, 4 * w), large(8 * w, 4 * w, 4 * w, 16 * w))
        self.stage4 = nn.Sequential(Down(16 * w, 8 * w), large(16 * w, 8 * w, 8 * w, 32 * w))
        self.stage5 = nn.Sequential(Down(32 * w, 16 * w), large(32 * w, 8 * w, 8 * w, 32 * w))
        self.spp = SPPCSPC(32 * w, 16 * w)
        self.lateral = nn.ModuleList([Conv(16 * w, 4 * w), Conv(32 * w, 8 * w)])
        self.reduce = nn.ModuleList([Conv(8 * w, 4 * w), Conv(16 * w, 8 * w)])
        self.top_down = nn.ModuleList([small(8 * w, 4 * w, 2 * w, 4 * w), small(16 * w, 8 * w, 4 * w, 8 * w)])
        self.down = nn.ModuleList([Down(4 * w, 4 * w), Down(8 * w, 8 * w)])
        self.bottom_up = nn.ModuleList([small(16 * w, 8 * w, 4 * w, 8 * w), small(32 * w, 16 * w, 8 * w, 16 * w)])
        self.rep = nn.ModuleList(Conv(c * w, 2 * c * w, 3) for c in (4, 8, 16))
        self.detect = Anchors([8 * w, 16 * w, 32 * w])
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stage3(self.stage2(self.stem(x)))]
        maps.append(self.stage4(maps[0]))
        maps.append(self.stage5(maps[1]))
        c3, c4, c5 = self.marks.of("p", maps)
        high = self.spp(c5)
        middle = self.top_down[1](torch.cat([self.lateral[1](c4), larger(self.reduce[1](high))], 1))
        low = self.top_down[0](torch.cat([self.lateral[0](c3), larger(self.reduce[0](middle))], 1))
        out4 = self.bottom_up[0](self.down[0](low, middle))
        out5 = self.bottom_up[1](self.down[1](out4, high))
        maps = [conv(x) for conv, x in zip(self.rep, (low, out4, out5), strict=True)]
        return self.detect(self.marks.of("n", maps))


class YOLOv7Tiny(nn.Module):
    """cfg/deploy/yolov7-tiny.yaml, narrower: stages begin with a pooling alone."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        w, act = width, partial(nn.LeakyReLU, 0.1)
        conv = partial(Conv, act=act)

        def elan(inputs: int, inner: int, outputs: int) -> ELAN:
            return ELAN(inputs, inner, inner, outputs, (0, 1, 2), act)

        self.stem = nn.Sequential(conv(3, w, 3, 2), conv(w, 2 * w, 3, 2), elan(2 * w, w, 2 * w))
        self.stages = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2, 2), elan(c * w, c * w, 2 * c * w)) for c in (2, 4, 8))
        self.spp = SPPCSPTiny(16 * w, 8 * w, act)
        self.reduce = nn.ModuleList([conv(4 * w, 2 * w), conv(8 * w, 4 * w)])
        self.lateral = nn.ModuleList([conv(4 * w, 2 * w), conv(8 * w, 4 * w)])
        self.top_down = nn.ModuleList([elan(4 * w, w, 2 * w), elan(8 * w, 2 * w, 4 * w)])
        self.down = nn.ModuleList([conv(2 * w, 4 * w, 3, 2), conv(4 * w, 8 * w, 3, 2)])
        self.bottom_up = nn.ModuleList([elan(8 * w, 2 * w, 4 * w), elan(16 * w, 4 * w, 8 * w)])
        self.out = nn.ModuleList(conv(c * w, 2 * c * w, 3) for c in (2, 4, 8))
        self.detect = Anchors([4 * w, 8 * w, 16 * w])
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> Tensor:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        c3, c4, c5 = self.marks.of("p", maps)
        high = self.spp(c5)
        middle = self.top_down[1](torch.cat([self.lateral[1](c4), larger(self.reduce[1](high))], 1))
        low = self.top_down[0](torch.cat([self.lateral[0](c3), larger(self.reduce[0](middle))], 1))
        out4 = self.bottom_up[0](torch.cat([self.down[0](low), middle], 1))
        out5 = self.bottom_up[1](torch.cat([self.down[1](out4), high], 1))
        maps = [conv(x) for conv, x in zip(self.out, (low, out4, out5), strict=True)]
        return self.detect(self.marks.of("n", maps))
