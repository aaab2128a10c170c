"""Face detectors: RetinaFace, YuNet, SCRFD, UltraFace."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import Conv
from tests.recognition.families.parts import Marks, MobileNetV1, Residual, Separable, flat, larger, plain


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.1)


class SSH(nn.Module):
    """RetinaFace's context module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv3X3 = plain(width, width // 2, 3)
        self.conv5X5_1 = Conv(width, width // 4, 3, act=leaky)
        self.conv5X5_2 = plain(width // 4, width // 4, 3)
        self.conv7X7_2 = Conv(width // 4, width // 4, 3, act=leaky)
        self.conv7x7_3 = plain(width // 4, width // 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv5X5_1(x)
        return functional.relu(
            torch.cat([self.conv3X3(x), self.conv5X5_2(inner), self.conv7x7_3(self.conv7X7_2(inner))], 1)
        )


class RetinaFace(nn.Module):
    """biubug6/Pytorch_Retinaface with MobileNet-0.25: FPN with activations, SSH, three heads a level."""

    def __init__(self) -> None:
        super().__init__()
        self.body = MobileNetV1(8, leaky)
        width = 32
        self.lateral = nn.ModuleList(Conv(inputs, width, act=leaky) for inputs in self.body.widths)
        self.merge = nn.ModuleList(Conv(width, width, 3, act=leaky) for _ in range(2))
        self.ssh = nn.ModuleList(SSH(width) for _ in range(3))
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width, 2 * values, 1) for _ in range(3)) for values in (4, 2, 10)
        )
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.marks.of("p", self.body(x))
        low, middle, high = (conv(x) for conv, x in zip(self.lateral, maps, strict=True))
        middle = self.merge[1](middle + larger(high, middle))
        low = self.merge[0](low + larger(middle, low))
        found = [ssh(x) for ssh, x in zip(self.ssh, (low, middle, high), strict=True)]
        found = self.marks.of("n", found)
        return tuple(
            torch.cat([flat(conv(x), values) for conv, x in zip(convs, found, strict=True)], 1)
            for convs, values in zip(self.heads, (4, 2, 10), strict=True)
        )


class PointDepth(nn.Sequential):
    """YuNet's ConvDPUnit: pointwise without activation, then depthwise."""

    def __init__(self, inputs: int, outputs: int, act: bool = True) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 1),
            Conv(outputs, outputs, 3, 1, outputs, nn.ReLU) if act else nn.Conv2d(outputs, outputs, 3, 1, 1, 1, outputs),
        )


class YuNet(nn.Module):
    """ShiqiYu/libfacedetection.train: laterals of ConvDPUnit behind the sums, a shared unit a level, four outputs."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.model0 = nn.Sequential(Conv(3, 8, 3, 2, act=nn.ReLU), PointDepth(8, 8))
        self.stages = nn.ModuleList(
            nn.Sequential(PointDepth(a, a), PointDepth(a, b)) for a, b in ((8, w), (w, w), (w, w), (w, w), (w, w))
        )
        self.lateral = nn.ModuleList(PointDepth(w, w) for _ in range(3))
        self.share = nn.ModuleList(PointDepth(w, w) for _ in range(3))
        self.heads = nn.ModuleList(
            nn.ModuleList(PointDepth(w, values, False) for _ in range(3)) for values in (1, 4, 1, 10)
        )
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, maps = functional.max_pool2d(self.model0(x), 2), []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            maps.append(x)
            if 0 < i < 4:
                x = functional.max_pool2d(x, 2)
        maps = self.marks.of("p", maps[2:])
        for i in (2, 1):
            maps[i] = self.lateral[i](maps[i])
            maps[i - 1] = maps[i - 1] + larger(maps[i])
        maps[0] = self.lateral[0](maps[0])
        maps = self.marks.of("n", maps)
        maps = [conv(x) for conv, x in zip(self.share, maps, strict=True)]
        return tuple(
            flat(conv(x), values)
            for convs, values in zip(self.heads, (1, 4, 1, 10), strict=True)
            for conv, x in zip(convs, maps, strict=True)
        )


class PAFPN(nn.Module):
    """mmdet's PAFPN as SCRFD uses it: plain convolutions without norm or activation."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in widths)
        self.fpn = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in widths[1:])
        self.pafpn = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths[1:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        found = [conv(x) for conv, x in zip(self.lateral, maps, strict=True)]
        for i in (2, 1):
            found[i - 1] = found[i - 1] + larger(found[i], found[i - 1])
        found = [conv(x) for conv, x in zip(self.fpn, found, strict=True)]
        for i in (0, 1):
            found[i + 1] = found[i + 1] + self.down[i](found[i])
        return [found[0], *(conv(x) for conv, x in zip(self.pafpn, found[1:], strict=True))]


class SCRFDHead(nn.Module):
    """Separable towers that the strides share, three plain convolutions behind."""

    def __init__(self, width: int, hidden: int, separable: bool) -> None:
        super().__init__()
        make = (lambda a, b: Separable(a, b)) if separable else (lambda a, b: Conv(a, b, 3, act=nn.ReLU))
        self.towers = nn.ModuleList(nn.Sequential(make(width, hidden), make(hidden, hidden)) for _ in range(3))
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(hidden, 2 * values, 3, padding=1) for values in (1, 4, 10)) for _ in range(3)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = []
        for x, tower, heads in zip(maps, self.towers, self.heads, strict=True):
            x = tower(x)
            score, box, points = (conv(x) for conv in heads)
            found += [flat(score, 1).sigmoid(), flat(box, 4), flat(points, 10)]
        return tuple(found)


class SCRFD(nn.Module):
    """insightface's SCRFD: a MobileNet (500M, 1G) or basic blocks (2.5G, 10G)."""

    def __init__(self, mobile: bool) -> None:
        super().__init__()
        self.mobile = mobile
        if mobile:
            self.backbone: nn.Module = MobileNetV1(8)
            widths: Sequence[int] = self.backbone.widths
        else:
            self.backbone = nn.Sequential(
                nn.Sequential(Conv(3, 8, 3, 2, act=nn.ReLU), nn.MaxPool2d(2), Residual(8, 8), Residual(8, 8)),
                nn.Sequential(Residual(8, 16, 2), Residual(16, 16)),
                nn.Sequential(Residual(16, 16, 2), Residual(16, 16)),
                nn.Sequential(Residual(16, 32, 2), Residual(32, 32)),
            )
            widths = (16, 16, 32)
        self.neck = PAFPN(widths, 16)
        self.head = SCRFDHead(16, 24, mobile)
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.mobile:
            maps = self.backbone(x)
        else:
            maps = []
            for stage in self.backbone:
                x = stage(x)
                maps.append(x)
            maps = maps[1:]
        return self.head(self.marks.of("n", self.neck(self.marks.of("p", maps))))


class UltraFace(nn.Module):
    """Linzaer's slim detector: an SSD on a MobileNet, one extra level that begins with a 1x1 convolution."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.stage3 = nn.Sequential(
            Conv(3, w, 3, 2, act=nn.ReLU),
            Separable(w, 2 * w),
            Separable(2 * w, 2 * w, 2),
            Separable(2 * w, 2 * w),
            Separable(2 * w, 4 * w, 2),
            Separable(4 * w, 4 * w),
            Separable(4 * w, 4 * w),
            Separable(4 * w, 4 * w),
        )
        self.stage4 = nn.Sequential(Separable(4 * w, 8 * w, 2), Separable(8 * w, 8 * w), Separable(8 * w, 8 * w))
        self.stage5 = nn.Sequential(Separable(8 * w, 16 * w, 2), Separable(16 * w, 16 * w))
        self.extras = nn.Sequential(
            nn.Conv2d(16 * w, 4 * w, 1),
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(4 * w, 4 * w, 3, 2, 1, groups=4 * w), nn.ReLU(), nn.Conv2d(4 * w, 16 * w, 1)),
            nn.ReLU(),
        )
        widths = (4 * w, 8 * w, 16 * w)

        def separable(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1)
            )

        self.boxes = nn.ModuleList([*(separable(c, 8) for c in widths), nn.Conv2d(16 * w, 12, 3, padding=1)])
        self.scores = nn.ModuleList([*(separable(c, 4) for c in widths), nn.Conv2d(16 * w, 6, 3, padding=1)])
        self.marks = Marks("p3", "p4", "p5", "x6")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for stage in (self.stage3, self.stage4, self.stage5):
            x = stage(x)
            maps.append(x)
        maps = self.marks.of("p", maps)
        maps.append(self.marks.x6(self.extras(maps[-1])))
        scores = torch.cat([flat(conv(x), 2) for conv, x in zip(self.scores, maps, strict=True)], 1)
        boxes = torch.cat([flat(conv(x), 4) for conv, x in zip(self.boxes, maps, strict=True)], 1)
        return scores.softmax(2), boxes
