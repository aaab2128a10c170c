"""DAMO-YOLO (Xu et al., 2022): TinyNAS backbones, the GiraffeNeckV2 (RepGFPN), and ZeroHead, as they are deployed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.exports.zoo.layers import Conv
from tests.recognition.families.others import SPP
from tests.recognition.families.parts import Act, Marks, larger, plain


class Focus(nn.Module):
    """Every second row and column to channels, and a convolution."""

    def __init__(self, inputs: int, outputs: int, act: Act) -> None:
        super().__init__()
        self.conv = Conv(4 * inputs, outputs, 3, act=act)

    def forward(self, x: Tensor) -> Tensor:
        parts = x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]
        return self.conv(torch.cat(parts, 1))


class ResConvBlock(nn.Module):
    """1x1 or 3x3, then 3x3; a shortcut unless it halves the map."""

    def __init__(self, inputs: int, outputs: int, inner: int, stride: int, act: Act, kernel: int = 1) -> None:
        super().__init__()
        self.stride, self.act = stride, act()
        self.conv1 = plain(inputs, inner, kernel)
        self.conv2 = nn.Conv2d(inner, outputs, 3, stride, 1)  # a RepConv of its own norm, fused
        self.project = plain(inputs, outputs) if inputs != outputs and stride != 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.act(self.conv1(x)))
        return self.act(y if self.stride == 2 else y + self.project(x))


def res_stage(inputs: int, outputs: int, count: int, stride: int, act: Act, *, spp: bool = False) -> nn.Sequential:
    """SuperResStem: blocks of 1x1 and 3x3, behind the first of the last stage a spatial pyramid pooling."""
    blocks: list[nn.Module] = [ResConvBlock(inputs, outputs, outputs // 2, stride, act)]
    blocks += [SPP(outputs, outputs)] if spp else []
    return nn.Sequential(*blocks, *(ResConvBlock(outputs, outputs, outputs // 2, 1, act) for _ in range(count - 1)))


class TinyNASRes(nn.Module):
    """TinyNAS_res: two stages of one stride before the last."""

    def __init__(self, width: int, act: Act) -> None:
        super().__init__()
        w = width
        self.stem = Focus(3, w, act)
        self.stages = nn.ModuleList(
            [
                res_stage(w, 2 * w, 2, 2, act),
                res_stage(2 * w, 4 * w, 3, 2, act),
                nn.Sequential(res_stage(4 * w, 8 * w, 2, 2, act), res_stage(8 * w, 8 * w, 2, 1, act)),
                res_stage(8 * w, 16 * w, 2, 2, act, spp=True),
            ]
        )
        self.widths = (4 * w, 8 * w, 16 * w)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found[1:]


class CSPWrapper(nn.Module):
    """A stage of TinyNAS_csp: a convolution of stride 2, and residual blocks in one of two branches."""

    def __init__(self, inputs: int, outputs: int, count: int, act: Act, *, spp: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.down = nn.Sequential(Conv(inputs, outputs, 3, 2, act=act), *([SPP(outputs, outputs)] if spp else []))
        self.start, self.short = Conv(outputs, half, act=act), Conv(outputs, half, act=act)
        self.blocks = nn.Sequential(*(ResConvBlock(half, half, half, 1, act, 3) for _ in range(count)))
        self.fuse = Conv(outputs, outputs, act=act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        short = self.short(x)
        return self.fuse(torch.cat((self.blocks(self.start(x)), short), 1))


class TinyNASCSP(nn.Module):
    """TinyNAS_csp."""

    def __init__(self, width: int, act: Act) -> None:
        super().__init__()
        w = width
        self.stem = Focus(3, w, act)
        widths = (w, 2 * w, 4 * w, 8 * w, 16 * w)
        self.stages = nn.ModuleList(
            CSPWrapper(widths[i], widths[i + 1], (1, 2, 3, 1)[i], act, spp=i == 3) for i in range(4)
        )
        self.widths = widths[2:]

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found[1:]


class ReverseBlock(nn.Module):
    """3x3, 3x3 and a shortcut."""

    def __init__(self, width: int, act: Act) -> None:
        super().__init__()
        self.conv2, self.conv1 = nn.Conv2d(width, width, 3, padding=1), Conv(width, width, 3, act=act)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv1(self.act(self.conv2(x)))


class CSPStage(nn.Module):
    """Two branches; every block of the second is concatenated."""

    def __init__(self, inputs: int, outputs: int, count: int, act: Act) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1, self.conv2 = Conv(inputs, half, act=act), Conv(inputs, half, act=act)
        self.convs = nn.ModuleList(ReverseBlock(half, act) for _ in range(count))
        self.conv3 = Conv(half * (count + 1), outputs, act=act)

    def forward(self, x: Tensor) -> Tensor:
        found, x = [self.conv1(x)], self.conv2(x)
        for block in self.convs:
            x = block(x)
            found.append(x)
        return self.conv3(torch.cat(found, 1))


class GiraffeNeckV2(nn.Module):
    """The neck begins with a merge at the deepest stride: of the backbone's last map with a halved finer one."""

    def __init__(self, widths: Sequence[int], outputs: Sequence[int], count: int, act: Act) -> None:
        super().__init__()
        (a, b, c), (d, e, f) = widths, outputs

        def down(channels: int) -> Conv:
            return Conv(channels, channels, 3, 2, act=act)

        self.bu_conv13, self.merge_3 = down(b), CSPStage(b + c, c, count, act)
        self.bu_conv24, self.merge_4 = down(a), CSPStage(a + b + c, b, count, act)
        self.merge_5 = CSPStage(a + b, d, count, act)
        self.bu_conv57, self.merge_7 = down(d), CSPStage(d + b, e, count, act)
        self.bu_conv46, self.bu_conv76, self.merge_6 = down(b), down(e), CSPStage(b + e + c, f, count, act)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x2, x1, x0 = maps
        x3 = self.merge_3(torch.cat([x0, self.bu_conv13(x1)], 1))
        x4 = self.merge_4(torch.cat([x1, self.bu_conv24(x2), larger(x3)], 1))
        x5 = self.merge_5(torch.cat([x2, larger(x4)], 1))
        x7 = self.merge_7(torch.cat([x4, self.bu_conv57(x5)], 1))
        x6 = self.merge_6(torch.cat([x3, self.bu_conv46(x4), self.bu_conv76(x7)], 1))
        return [x5, x7, x6]


class DAMOYOLO(nn.Module):
    """``csp``: the backbone of DAMO-YOLO-M and L, else that of T and S."""

    def __init__(self, csp: bool = False, width: int = 8, count: int = 2, bins: int = 17, classes: int = 4) -> None:
        super().__init__()
        act = nn.SiLU if csp else nn.ReLU
        self.backbone: nn.Module = (TinyNASCSP if csp else TinyNASRes)(width, act)
        widths = self.backbone.widths
        outputs = [width * 2, width * 4, width * 8]
        self.neck = GiraffeNeckV2(widths, outputs, count, act)
        self.cls = nn.ModuleList(nn.Conv2d(c, classes + 1, 3, padding=1) for c in outputs)
        self.reg = nn.ModuleList(nn.Conv2d(c, 4 * bins, 3, padding=1) for c in outputs)
        self.bins = bins
        self.scales = nn.ParameterList(nn.Parameter(torch.rand(1) + 0.5) for _ in outputs)
        self.register_buffer("project", torch.arange(bins).float())
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.marks.of("n", self.neck(self.marks.of("p", self.backbone(x))))
        scores, boxes = [], []
        for i, x in enumerate(maps):
            n, _, height, width = x.shape
            found = (self.scales[i] * self.reg[i](x)).reshape(n, 4, self.bins, height, width).softmax(2)
            scores.append(self.cls[i](x).sigmoid().flatten(2).permute(0, 2, 1))
            boxes.append(found.flatten(3).permute(0, 3, 1, 2) @ self.project)
        return torch.cat(scores, 1)[:, :, :-1], torch.cat(boxes, 1)
