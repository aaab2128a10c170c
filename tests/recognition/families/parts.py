"""What the detectors here share: marks, convolutions, backbones and necks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import Conv

Act = Callable[[], nn.Module]


class Marks(nn.Module):
    """Names maps: a call passes a tensor on, and hooks on its children see it. Every use has a name of its own."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Identity())

    def of(self, prefix: str, maps: Sequence[Tensor], first: int = 3) -> list[Tensor]:
        """Mark maps as p3, p4 ... or n3, n4 ..., from stride 2**first on."""
        return [self.get_submodule(f"{prefix}{first + i}")(x) for i, x in enumerate(maps)]


def vary_norms(model: nn.Module) -> None:
    """Scale BatchNorms as training does: one of ones and zeros could be folded away."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)


def plain(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: Act = nn.Identity) -> Conv:
    """A convolution with BatchNorm, without activation unless one is given."""
    return Conv(inputs, outputs, kernel, stride, groups, act)


def larger(x: Tensor, like: Tensor | None = None) -> Tensor:
    """Twice as large, or as large as another map, by the nearest neighbour."""
    if like is None:
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")
    return functional.interpolate(x, size=like.shape[2:], mode="nearest")


class Separable(nn.Sequential):
    """MobileNet's: depthwise and pointwise, each with BatchNorm and activation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3, act: Act = nn.ReLU) -> None:
        super().__init__(
            Conv(inputs, inputs, kernel, stride, inputs, act),
            Conv(inputs, outputs, 1, 1, 1, act),
        )


class MobileNetV1(nn.Module):
    """Separable convolutions, two a stage; gives strides 8, 16, 32."""

    def __init__(self, width: int = 8, act: Act = nn.ReLU) -> None:
        super().__init__()
        w = width
        self.stage1 = nn.Sequential(
            Conv(3, w, 3, 2, act=act),
            Separable(w, 2 * w, act=act),
            Separable(2 * w, 2 * w, 2, act=act),
            Separable(2 * w, 2 * w, act=act),
            Separable(2 * w, 4 * w, 2, act=act),
            Separable(4 * w, 4 * w, act=act),
        )
        self.stage2 = nn.Sequential(
            Separable(4 * w, 8 * w, 2, act=act), *(Separable(8 * w, 8 * w, act=act) for _ in range(5))
        )
        self.stage3 = nn.Sequential(Separable(8 * w, 16 * w, 2, act=act), Separable(16 * w, 16 * w, act=act))
        self.widths = (4 * w, 8 * w, 16 * w)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in (self.stage1, self.stage2, self.stage3):
            x = stage(x)
            found.append(x)
        return found


def shuffled(x: Tensor, groups: int = 2) -> Tensor:
    """Channel shuffle, as torchvision writes it."""
    n, channels, height, width = x.shape
    return x.view(n, groups, channels // groups, height, width).transpose(1, 2).reshape(n, channels, height, width)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's block (Ma et al., 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: Act) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        entering = inputs if stride > 1 else half
        if stride > 1:
            self.branch1 = nn.Sequential(plain(inputs, inputs, 3, stride, inputs), Conv(inputs, half, act=act))
        self.branch2 = nn.Sequential(
            Conv(entering, half, act=act), plain(half, half, 3, stride, half), Conv(half, half, act=act)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            return shuffled(torch.cat((self.branch1(x), self.branch2(x)), 1))
        kept, other = x.chunk(2, 1)
        return shuffled(torch.cat((kept, self.branch2(other)), 1))


class ShuffleNetV2(nn.Module):
    """Strides 8, 16 and 32."""

    def __init__(self, width: int = 16, act: Act = nn.ReLU, repeats: Sequence[int] = (3, 7, 3)) -> None:
        super().__init__()
        self.conv1 = Conv(3, width, 3, 2, act=act)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.widths = tuple(2 * width << i for i in range(len(repeats)))
        stages, inputs = [], width
        for outputs, count in zip(self.widths, repeats, strict=True):
            units = [ShuffleUnit(inputs, outputs, 2, act)]
            units += [ShuffleUnit(outputs, outputs, 1, act) for _ in range(count - 1)]
            stages.append(nn.Sequential(*units))
            inputs = outputs
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.maxpool(self.conv1(x)), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = Conv(inputs, outputs, 3, stride, act=nn.ReLU)
        self.conv2 = plain(outputs, outputs, 3)
        self.down = plain(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv2(self.conv1(x)) + self.down(x))


class ResNet(nn.Module):
    """Strides 4 to 32, or 8 to 32."""

    def __init__(self, width: int = 8, first: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv(3, width, 3, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1))
        widths = [width << i for i in range(4)]
        inputs, stages = width, []
        for i, outputs in enumerate(widths):
            stages.append(nn.Sequential(Residual(inputs, outputs, 2 if i else 1), Residual(outputs, outputs)))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.first = first
        self.widths = tuple(widths[first:])

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found[self.first :]


class FPN(nn.Module):
    """The feature pyramid of mmdet: laterals, sums, 3x3 convolutions behind; extra levels by stride 2."""

    def __init__(self, widths: Sequence[int], width: int, *, bias: bool = True, extra: int = 0) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1, bias=bias) for inputs in widths)
        self.out = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)
        self.extra = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(extra))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        found = [conv(x) for conv, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(found) - 1, 0, -1):
            found[i - 1] = found[i - 1] + larger(found[i])
        found = [conv(x) for conv, x in zip(self.out, found, strict=True)]
        for conv in self.extra:
            found.append(conv(found[-1]))
        return found


def flat(x: Tensor, values: int) -> Tensor:
    """[N, A * values, H, W] -> [N, H * W * A, values]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
