"""FastestDet (dog-qiuqiu, 2022): ShuffleNetV2, all maps brought to stride 16, one head there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import Conv
from tests.recognition.families.parts import Marks, larger, plain


class ShuffleV2Block(nn.Module):
    """ShuffleNetV2's block, which shuffles what it reads and not what it gives."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, inner = stride, outputs // 2
        self.main = nn.Sequential(
            Conv(inputs, inner, act=nn.ReLU),
            plain(inner, inner, 3, stride, inner),
            Conv(inner, outputs - inputs, act=nn.ReLU),
        )
        if stride == 2:
            self.proj = nn.Sequential(plain(inputs, inputs, 3, 2, inputs), Conv(inputs, inputs, act=nn.ReLU))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return torch.cat((self.proj(x), self.main(x)), 1)
        kept, other = _split(x)
        return torch.cat((kept, self.main(other)), 1)


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """The even channels and the odd ones."""
    n, channels, height, width = x.shape
    x = x.reshape(n * channels // 2, 2, height * width).permute(1, 0, 2)
    x = x.reshape(2, -1, channels // 2, height, width)
    return x[0], x[1]


class Backbone(nn.Module):
    """Strides 8, 16 and 32."""

    def __init__(self, widths: Sequence[int], repeats: Sequence[int] = (4, 8, 4)) -> None:
        super().__init__()
        self.first_conv = Conv(3, widths[0], 3, 2, act=nn.ReLU)
        self.stages = nn.ModuleList()
        for inputs, outputs, count in zip(widths[:-1], widths[1:], repeats, strict=True):
            units = [ShuffleV2Block(inputs, outputs, 2)]
            units += [ShuffleV2Block(outputs // 2, outputs, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*units))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = functional.max_pool2d(self.first_conv(x), 3, 2, 1), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class SPP(nn.Module):
    """One, two and three 5x5 depthwise convolutions side by side, and a shortcut."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = Conv(inputs, width, act=nn.ReLU)
        self.branches = nn.ModuleList(
            nn.Sequential(*(Conv(width, width, 5, 1, width, nn.ReLU) for _ in range(count))) for count in (1, 2, 3)
        )
        self.output = plain(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return functional.relu(x + self.output(torch.cat([branch(x) for branch in self.branches], 1)))


class FastestDet(nn.Module):
    """The image to objectness, box and classes of every cell."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        widths = (8, 16, 32, 64)
        self.backbone = Backbone(widths)
        self.spp = SPP(sum(widths[1:]), widths[2])
        self.stem = Conv(widths[2], widths[2], act=nn.ReLU)
        self.heads = nn.ModuleList(
            nn.Sequential(Conv(widths[2], widths[2], 5, 1, widths[2], nn.ReLU), plain(widths[2], values))
            for values in (1, 4, classes)
        )
        self.marks = Marks("p3", "p4", "p5", "n4")

    def forward(self, x: Tensor) -> Tensor:
        c3, c4, c5 = self.marks.of("p", self.backbone(x))
        x = self.spp(torch.cat((functional.avg_pool2d(c3, 3, 2, 1), c4, larger(c5)), 1))
        (x,) = self.marks.of("n", [x], 4)
        x = self.stem(x)
        objectness, box, classes = (head(x) for head in self.heads)
        return torch.cat((objectness.sigmoid(), box, classes.softmax(1)), 1)
