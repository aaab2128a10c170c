"""Detectors of things and of text: NanoDet-Plus, RTMDet, PP-OCRv3, ShuffleNetV2 with an FPN, SSD, RetinaNet, FCOS."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import Conv
from tests.recognition.families.parts import (
    FPN,
    Marks,
    MobileNetV1,
    ResNet,
    Separable,
    ShuffleNetV2,
    flat,
    larger,
    plain,
)


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.1)


class GhostModule(nn.Module):
    """GhostNet's convolution."""

    def __init__(self, inputs: int, outputs: int, act: bool = True) -> None:
        super().__init__()
        half, kind = outputs // 2, leaky if act else nn.Identity
        self.primary_conv = Conv(inputs, half, act=kind)
        self.cheap_operation = Conv(half, half, 3, 1, half, kind)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary_conv(x)
        return torch.cat([first, self.cheap_operation(first)], 1)


class GhostBottleneck(nn.Module):
    """NanoDet-Plus's: 5x5, with a shortcut of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.ghost1 = GhostModule(inputs, outputs)
        self.ghost2 = GhostModule(outputs, outputs, False)
        self.shortcut = nn.Sequential(plain(inputs, inputs, 5, 1, inputs), plain(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.ghost2(self.ghost1(x)) + self.shortcut(x)


class NanoDetPlus(nn.Module):
    """RangiLyu/nanodet: ShuffleNetV2, GhostPAN with an extra level that a lateral feeds, separable towers."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.backbone = ShuffleNetV2(16, leaky)
        w = width
        self.reduce_layers = nn.ModuleList(Conv(inputs, w, act=leaky) for inputs in self.backbone.widths)
        self.top_down = nn.ModuleList(GhostBottleneck(2 * w, w) for _ in range(2))
        self.downsamples = nn.ModuleList(Separable(w, w, 2, 5, leaky) for _ in range(2))
        self.bottom_up = nn.ModuleList(GhostBottleneck(2 * w, w) for _ in range(2))
        self.extra_lvl_in_conv = Separable(w, w, 2, 5, leaky)
        self.extra_lvl_out_conv = Separable(w, w, 2, 5, leaky)
        self.towers = nn.ModuleList(
            nn.Sequential(Separable(w, w, 1, 5, leaky), Separable(w, w, 1, 5, leaky)) for _ in range(4)
        )
        self.gfl_cls = nn.ModuleList(nn.Conv2d(w, 20 + 32, 1) for _ in range(4))
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5", "n6")

    def forward(self, x: Tensor) -> Tensor:
        maps = [conv(x) for conv, x in zip(self.reduce_layers, self.marks.of("p", self.backbone(x)), strict=True)]
        inner = [maps[2]]
        for i in (2, 1):
            up = functional.interpolate(inner[0], scale_factor=2.0, mode="bilinear")
            inner.insert(0, self.top_down[2 - i](torch.cat([up, maps[i - 1]], 1)))
        found = [inner[0]]
        for i in (0, 1):
            found.append(self.bottom_up[i](torch.cat([self.downsamples[i](found[-1]), inner[i + 1]], 1)))
        found.append(self.extra_lvl_in_conv(maps[-1]) + self.extra_lvl_out_conv(found[-1]))
        given = []
        for x, tower, conv in zip(self.marks.of("n", found), self.towers, self.gfl_cls, strict=True):
            scores, boxes = conv(tower(x)).split([20, 32], dim=1)
            given.append(torch.cat([scores.sigmoid(), boxes], 1).flatten(start_dim=2))
        return torch.cat(given, 2).permute(0, 2, 1)


class ShuffleFPN(nn.Module):
    """ShuffleNetV2 under a plain FPN, with a shared head of two convolutions."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.backbone = ShuffleNetV2(16)
        self.neck = FPN(self.backbone.widths, width)
        self.tower = Conv(width, width, 3, act=nn.ReLU)
        self.score = nn.Conv2d(width, 20, 3, padding=1)
        self.box = nn.Conv2d(width, 4, 3, padding=1)
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.marks.of("n", self.neck(self.marks.of("p", self.backbone(x))))
        maps = [self.tower(x) for x in maps]
        return torch.cat([flat(self.score(x), 20) for x in maps], 1), torch.cat([flat(self.box(x), 4) for x in maps], 1)


class Gate(nn.Module):
    """PP-OCR's squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width // 4, 1)
        self.conv2 = nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = functional.adaptive_avg_pool2d(x, 1)
        return x * functional.hardsigmoid(self.conv2(functional.relu(self.conv1(mean))))


class RSELayer(nn.Module):
    """A convolution, a gate and a shortcut around the gate."""

    def __init__(self, inputs: int, outputs: int, kernel: int, shortcut: bool = True) -> None:
        super().__init__()
        self.in_conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.se_block = Gate(outputs)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        return x + self.se_block(x) if self.shortcut else self.se_block(x)


class InvertedResidual(nn.Module):
    """MobileNetV3's block without its gate, as PP-OCRv3's detector has it."""

    def __init__(self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.expand = Conv(inputs, hidden, act=nn.Hardswish)
        self.depth = Conv(hidden, hidden, kernel, stride, hidden, nn.Hardswish)
        self.linear = plain(hidden, outputs)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.depth(self.expand(x)))
        return x + y if self.shortcut else y


class PPOCRDet(nn.Module):
    """PaddleOCR's DB detector: MobileNetV3 at half width, RSEFPN, a head that enlarges twice."""

    def __init__(self, shortcut: bool = True) -> None:
        super().__init__()
        rows = [
            [(8, 8, 8, 3, 1), (8, 32, 16, 3, 2), (16, 40, 16, 3, 1)],
            [(16, 40, 24, 5, 2), (24, 64, 24, 5, 1), (24, 64, 24, 5, 1)],
            [(24, 120, 40, 3, 2), (40, 104, 40, 3, 1), (40, 96, 40, 3, 1), (40, 240, 56, 3, 1)],
            [(56, 336, 80, 5, 2), (80, 480, 80, 5, 1), (80, 480, 80, 5, 1)],
        ]
        self.conv = Conv(3, 8, 3, 2, act=nn.Hardswish)
        stages = [nn.Sequential(*(InvertedResidual(*row) for row in stage)) for stage in rows]
        stages[-1].append(Conv(80, 480, act=nn.Hardswish))
        self.stages = nn.ModuleList(stages)
        width = 24
        self.ins_conv = nn.ModuleList(RSELayer(inputs, width, 1, shortcut) for inputs in (16, 24, 56, 480))
        self.inp_conv = nn.ModuleList(RSELayer(width, width // 4, 3, shortcut) for _ in range(4))
        self.head = nn.Sequential(
            Conv(width, 8, 3, act=nn.ReLU),
            nn.ConvTranspose2d(8, 8, 2, 2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, 2),
            nn.Sigmoid(),
        )
        self.marks = Marks("p2", "p3", "p4", "p5")

    def forward(self, x: Tensor) -> Tensor:
        x, maps = self.conv(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps = self.marks.of("p", maps, 2)
        maps = [conv(x) for conv, x in zip(self.ins_conv, maps, strict=True)]
        for i in (3, 2, 1):
            maps[i - 1] = maps[i - 1] + larger(maps[i])
        maps = [conv(x) for conv, x in zip(self.inp_conv, maps, strict=True)]
        maps = [x if not i else functional.interpolate(x, scale_factor=float(2**i)) for i, x in enumerate(maps)]
        return self.head(torch.cat(maps[::-1], 1))


class CSPNeXtBlock(nn.Module):
    """RTMDet's bottleneck: 3x3, then 5x5 depthwise and pointwise."""

    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = Conv(width, width, 3)
        self.conv2 = nn.Sequential(Conv(width, width, 5, 1, width), Conv(width, width))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    """mmdet's CSP layer with CSPNeXt blocks, whose gate uses a plain mean, fc and hard sigmoid."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool, gated: bool, count: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        self.main_conv, self.short_conv = Conv(inputs, half), Conv(inputs, half)
        self.blocks = nn.Sequential(*(CSPNeXtBlock(half, shortcut) for _ in range(count)))
        self.fc = nn.Conv2d(2 * half, 2 * half, 1) if gated else None
        self.final_conv = Conv(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.blocks(self.main_conv(x)), self.short_conv(x)), 1)
        if self.fc is not None:
            x = x * functional.hardsigmoid(self.fc(functional.adaptive_avg_pool2d(x, 1)))
        return self.final_conv(x)


class SPP(nn.Module):
    """Spatial pyramid pooling with three windows side by side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(inputs, inputs // 2), Conv(2 * inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(functional.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13))], 1))


class RTMDet(nn.Module):
    """mmdet's RTMDet: CSPNeXt, CSPNeXtPAFPN with 3x3 convolutions behind, two towers a level."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(Conv(3, w // 2, 3, 2), Conv(w // 2, w // 2, 3), Conv(w // 2, w, 3))
        stages = []
        for i in range(4):
            a, b = w << i, w << (i + 1)
            spp = [SPP(b, b)] if i == 3 else []
            stages.append(nn.Sequential(Conv(a, b, 3, 2), *spp, CSPLayer(b, b, i < 3, True, 2 if i in (1, 2) else 1)))
        self.stages = nn.ModuleList(stages)
        c3, c4, c5 = 4 * w, 8 * w, 16 * w
        self.reduce = nn.ModuleList([Conv(c5, c4), Conv(c4, c3)])
        self.top_down = nn.ModuleList([CSPLayer(2 * c4, c4, False, False), CSPLayer(2 * c3, c3, False, False)])
        self.downs = nn.ModuleList([Conv(c3, c3, 3, 2), Conv(c4, c4, 3, 2)])
        self.bottom_up = nn.ModuleList([CSPLayer(2 * c3, c4, False, False), CSPLayer(2 * c4, c5, False, False)])
        self.out = nn.ModuleList(Conv(c, c3, 3) for c in (c3, c4, c5))
        self.cls = nn.ModuleList(nn.Sequential(Conv(c3, c3, 3), Conv(c3, c3, 3)) for _ in range(3))
        self.reg = nn.ModuleList(nn.Sequential(Conv(c3, c3, 3), Conv(c3, c3, 3)) for _ in range(3))
        self.score = nn.ModuleList(nn.Conv2d(c3, 20, 1) for _ in range(3))
        self.box = nn.ModuleList(nn.Conv2d(c3, 4, 1) for _ in range(3))
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        c3, c4, c5 = self.marks.of("p", maps[1:])
        high = self.reduce[0](c5)
        middle = self.reduce[1](self.top_down[0](torch.cat([larger(high), c4], 1)))
        low = self.top_down[1](torch.cat([larger(middle), c3], 1))
        out4 = self.bottom_up[0](torch.cat([self.downs[0](low), middle], 1))
        out5 = self.bottom_up[1](torch.cat([self.downs[1](out4), high], 1))
        maps = [conv(x) for conv, x in zip(self.out, (low, out4, out5), strict=True)]
        given = []
        for i, x in enumerate(self.marks.of("n", maps)):
            given += [self.score[i](self.cls[i](x)), self.box[i](self.reg[i](x))]
        return tuple(given)


class Dense(nn.Module):
    """mmdet's RetinaNet or FCOS on a ResNet or a MobileNet: FPN with two extra levels, towers that all levels share."""

    def __init__(self, mobile: bool = False, centre: bool = False, width: int = 16) -> None:
        super().__init__()
        self.backbone: MobileNetV1 | ResNet = MobileNetV1(8) if mobile else ResNet(8)
        self.neck = FPN(self.backbone.widths, width, extra=2)

        def tower() -> nn.Module:
            if not centre:
                return nn.Sequential(*(m for _ in range(2) for m in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())))
            norms = ((nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(4, width), nn.ReLU()) for _ in range(2))
            return nn.Sequential(*(m for layers in norms for m in layers))

        self.cls, self.reg = tower(), tower()
        self.score = nn.Conv2d(width, 20, 3, padding=1)
        self.box = nn.Conv2d(width, 4, 3, padding=1)
        self.centre = nn.Conv2d(width, 1, 3, padding=1) if centre else None
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5", "n6", "n7")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.marks.of("n", self.neck(self.marks.of("p", self.backbone(x))))
        found: list[list[Tensor]] = [[], [], []]
        for x in maps:
            boxes = self.reg(x)
            found[0].append(flat(self.score(self.cls(x)), 20))
            found[1].append(flat(self.box(boxes), 4))
            if self.centre is not None:
                found[2].append(flat(self.centre(boxes), 1))
        return tuple(torch.cat(each, 1) for each in found if each)


class SSD(nn.Module):
    """An SSD on MobileNet: extras of 1x1 and 3x3 at stride 2, plain heads on all levels."""

    def __init__(self, extras: int = 2) -> None:
        super().__init__()
        self.backbone = MobileNetV1(8)
        widths = list(self.backbone.widths[1:])
        layers = []
        for _ in range(extras):
            layers.append(nn.Sequential(Conv(widths[-1], 32, act=nn.ReLU6), Conv(32, 64, 3, 2, act=nn.ReLU6)))
            widths.append(64)
        self.extras = nn.ModuleList(layers)
        self.cls = nn.ModuleList(nn.Conv2d(c, 24, 3, padding=1) for c in widths)
        self.reg = nn.ModuleList(nn.Conv2d(c, 16, 3, padding=1) for c in widths)
        self.marks = Marks("p4", "p5", *(f"x{6 + i}" for i in range(extras)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.marks.of("p", self.backbone(x)[1:], 4)
        for i, layer in enumerate(self.extras):
            maps.append(self.marks.get_submodule(f"x{6 + i}")(layer(maps[-1])))
        scores = torch.cat([flat(conv(x), 6) for conv, x in zip(self.cls, maps, strict=True)], 1)
        boxes = torch.cat([flat(conv(x), 4) for conv, x in zip(self.reg, maps, strict=True)], 1)
        return scores, boxes
