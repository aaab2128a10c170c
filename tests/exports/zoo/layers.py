"""What the detectors here share: convolutions with normalisation and activation, and their neck."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution that keeps the size at stride 1, BatchNorm, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: Callable[[], nn.Module] = nn.SiLU,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class DWConv(Conv):
    """The same with one filter a channel."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, groups=channels)


class SeparableConv(nn.Module):
    """A depthwise convolution and a pointwise one, each with its activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = DWConv(inputs, kernel, stride)
        self.pconv = Conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.pconv(self.dconv(x))


class SPPBottleneck(nn.Module):
    """Spatial pyramid pooling with three windows side by side (He et al., 2014, as in YOLOv3-SPP)."""

    def __init__(self, inputs: int, outputs: int, windows: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = inputs // 2
        self.conv1 = Conv(inputs, hidden)
        self.m = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in windows)
        self.conv2 = Conv(hidden * (len(windows) + 1), outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class PAFPN(nn.Module):
    """Path aggregation (Liu et al., 2018): down from the deepest map and up again, a CSP layer behind every joint.

    `layer(inputs, outputs)` makes a CSP layer, `down(channels)` a convolution of stride 2.
    """

    def __init__(
        self, widths: Sequence[int], layer: Callable[[int, int], nn.Module], down: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        c3, c4, c5 = widths
        self.upsample0 = nn.Upsample(scale_factor=2, mode="nearest")
        self.upsample1 = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral_conv0 = Conv(c5, c4)
        self.C3_p4 = layer(2 * c4, c4)
        self.reduce_conv1 = Conv(c4, c3)
        self.C3_p3 = layer(2 * c3, c3)
        self.bu_conv2 = down(c3)
        self.C3_n3 = layer(2 * c3, c4)
        self.bu_conv1 = down(c4)
        self.C3_n4 = layer(2 * c4, c5)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x2, x1, x0 = maps
        side0 = self.lateral_conv0(x0)
        middle = self.C3_p4(torch.cat([self.upsample0(side0), x1], 1))
        side1 = self.reduce_conv1(middle)
        out3 = self.C3_p3(torch.cat([self.upsample1(side1), x2], 1))
        out4 = self.C3_n3(torch.cat([self.bu_conv2(out3), side1], 1))
        out5 = self.C3_n4(torch.cat([self.bu_conv1(out4), side0], 1))
        return out3, out4, out5


class Detector(nn.Module):
    """Backbone, neck, head."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(self.neck(self.backbone(images)))
        return result


def grid(height: int, width: int) -> Tensor:
    """Return the column and row of every cell, [height * width, 2]."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows], -1).reshape(-1, 2).float()
