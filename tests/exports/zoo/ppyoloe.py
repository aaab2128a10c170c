"""PP-YOLOE (Xu et al., 2022) as it is deployed, its RepVGG blocks fused: CSPRepResNet, custom CSPPAN, ET-head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import Conv, Detector, grid

CLASSES = 80
BINS = 17
STRIDES = (32, 16, 8)


class RepVggBlock(nn.Module):
    """The 3 x 3 and 1 x 1 branches of training, fused: one convolution with a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class RepResidual(nn.Module):
    """Convolution, RepVGG block, shortcut; no activation behind the sum."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = RepVggBlock(channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class EffectiveSE(nn.Module):
    """Squeeze and excitation with one layer and a hard sigmoid (Lee and Park, 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.act = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.act(self.fc(x.mean((2, 3), keepdim=True)))


class CSPResStage(nn.Module):
    """Stride 2, two branches, residual blocks on one of them, channel attention, 1 x 1."""

    def __init__(self, inputs: int, outputs: int, n: int) -> None:
        super().__init__()
        middle = (inputs + outputs) // 2
        self.conv_down = Conv(inputs, middle, 3, 2)
        self.conv1 = Conv(middle, middle // 2)
        self.conv2 = Conv(middle, middle // 2)
        self.blocks = nn.Sequential(*(RepResidual(middle // 2, True) for _ in range(n)))
        self.attn = EffectiveSE(middle)
        self.conv3 = Conv(middle, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_down(x)
        return self.conv3(self.attn(torch.cat([self.conv1(x), self.blocks(self.conv2(x))], 1)))


class CSPRepResNet(nn.Module):
    """Stem of three convolutions, four stages."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        half = widths[0] // 2
        self.stem = nn.Sequential(Conv(3, half, 3, 2), Conv(half, half, 3), Conv(half, widths[0], 3))
        self.stages = nn.Sequential(*(CSPResStage(widths[i], widths[i + 1], depth) for i, depth in enumerate(depths)))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[2:]


class SPP(nn.Module):
    """Three windows side by side, joined by 1 x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in (5, 9, 13))
        self.conv = Conv(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x, *(pool(x) for pool in self.pool)], 1))


class CSPStage(nn.Module):
    """The neck's stage: two branches, blocks without shortcut on one of them, with pooling among them where asked."""

    def __init__(self, inputs: int, outputs: int, n: int, spp: bool = False) -> None:
        super().__init__()
        middle = outputs // 2
        self.conv1 = Conv(inputs, middle)
        self.conv2 = Conv(inputs, middle)
        blocks: list[nn.Module] = [RepResidual(middle, False) for _ in range(n)]
        if spp:
            blocks.insert((n - 1) // 2 + 1, SPP(middle))
        self.convs = nn.Sequential(*blocks)
        self.conv3 = Conv(2 * middle, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(torch.cat([self.conv1(x), self.convs(self.conv2(x))], 1))


class CustomCSPPAN(nn.Module):
    """Three levels, the deepest first."""

    def __init__(self, widths: Sequence[int], outputs: Sequence[int], n: int) -> None:
        super().__init__()
        reduced = (0, outputs[0] // 2, outputs[1] // 2)
        self.fpn_stages = nn.ModuleList(CSPStage(widths[i] + reduced[i], outputs[i], n, spp=i == 0) for i in range(3))
        self.fpn_routes = nn.ModuleList(Conv(outputs[i], outputs[i] // 2) for i in range(2))
        self.pan_routes = nn.ModuleList(Conv(outputs[i + 1], outputs[i + 1], 3, 2) for i in range(2))
        self.pan_stages = nn.ModuleList(CSPStage(outputs[i] + outputs[i + 1], outputs[i], n) for i in range(2))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        down: list[Tensor] = []
        for level, x in enumerate(reversed(maps)):
            if level:
                route = self.fpn_routes[level - 1](down[-1])
                x = torch.cat([functional.interpolate(route, scale_factor=2.0), x], 1)
            down.append(self.fpn_stages[level](x))
        up = [down[2]]
        for level in (1, 0):
            up.append(self.pan_stages[level](torch.cat([self.pan_routes[level](up[-1]), down[level]], 1)))
        return up[::-1]


class ESEAttn(nn.Module):
    """A gate from the mean of the map, then 1 x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.conv = Conv(channels, channels)

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        return self.conv(x * self.fc(mean).sigmoid())


class PPYOLOEHead(nn.Module):
    """Scores and, from distributions over 17 bins, boxes in pixels: [N, cells, 4 + classes]."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem_cls = nn.ModuleList(ESEAttn(width) for width in widths)
        self.stem_reg = nn.ModuleList(ESEAttn(width) for width in widths)
        self.pred_cls = nn.ModuleList(nn.Conv2d(width, CLASSES, 3, padding=1) for width in widths)
        self.pred_reg = nn.ModuleList(nn.Conv2d(width, 4 * BINS, 3, padding=1) for width in widths)
        self.proj_conv = nn.Conv2d(BINS, 1, 1, bias=False)
        self.proj_conv.weight.data.copy_(torch.arange(BINS).reshape(1, BINS, 1, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = []
        for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            mean = functional.adaptive_avg_pool2d(x, (1, 1))
            scores = self.pred_cls[level](self.stem_cls[level](x, mean) + x).sigmoid().flatten(2)
            bins = self.pred_reg[level](self.stem_reg[level](x, mean)).reshape(-1, 4, BINS, x.shape[2] * x.shape[3])
            sides = self.proj_conv(functional.softmax(bins.permute(0, 2, 3, 1), 1)).squeeze(1)
            centres = grid(x.shape[2], x.shape[3]) + 0.5
            boxes = torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], -1) * stride
            found.append(torch.cat([boxes, scores.permute(0, 2, 1)], -1))
        return torch.cat(found, 1)


def ppyoloe() -> Detector:
    """Return PP-YOLOE with a quarter of the widths of its size L and a third of its depths."""
    outputs = (192, 96, 48)
    neck = CustomCSPPAN((256, 128, 64), outputs, 1)
    return Detector(CSPRepResNet((16, 32, 64, 128, 256), (1, 2, 2, 1)), neck, PPYOLOEHead(outputs))
