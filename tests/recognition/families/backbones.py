"""Networks with blocks that few exports have: MobileNetV3's ports, RTMDet-nano, affine PP-HGNetV2, Caffe2's ResNet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import Conv, SeparableConv
from tests.recognition.families import others
from tests.recognition.families.parts import plain

Gate = Callable[[int], nn.Module]


class LinearGate(nn.Module):
    """Squeeze and excitation by matrix products, as MobileNetV3's first ports to PyTorch have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        n, c, _, _ = x.shape
        return x * self.fc(functional.adaptive_avg_pool2d(x, 1).view(n, c)).view(n, c, 1, 1)


class InvertedResidual(nn.Module):
    """MobileNetV3's block with its gate in front of the activation (Howard et al., 2019)."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        stride: int,
        gate: Callable[[int], nn.Module],
        swish: bool,
    ) -> None:
        super().__init__()
        act = nn.Hardswish if swish else nn.ReLU
        self.expand = Conv(inputs, hidden, act=act) if hidden != inputs else nn.Identity()
        self.depth = plain(hidden, hidden, kernel, stride, hidden)
        self.gate, self.act = gate(hidden), act()
        self.project = plain(hidden, outputs)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.act(self.gate(self.depth(self.expand(x)))))
        return x + y if self.shortcut else y


class MobileNetV3(nn.Module):
    """The small one: eleven blocks, nine of them with a gate."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        relu, swish = nn.ReLU, nn.Hardswish

        def no_gate(width: int) -> nn.Module:
            return nn.Identity()

        blocks = [
            InvertedResidual(16, 16, 16, 3, 2, gate, relu),
            InvertedResidual(16, 72, 24, 3, 2, no_gate, relu),
            InvertedResidual(24, 88, 24, 3, 1, no_gate, relu),
            InvertedResidual(24, 96, 40, 5, 2, gate, swish),
            InvertedResidual(40, 240, 40, 5, 1, gate, swish),
            InvertedResidual(40, 240, 40, 5, 1, gate, swish),
            InvertedResidual(40, 120, 48, 5, 1, gate, swish),
            InvertedResidual(48, 144, 48, 5, 1, gate, swish),
            InvertedResidual(48, 288, 96, 5, 2, gate, swish),
            InvertedResidual(96, 576, 96, 5, 1, gate, swish),
            InvertedResidual(96, 576, 96, 5, 1, gate, swish),
        ]
        self.features = nn.Sequential(Conv(3, 16, 3, 2, act=nn.Hardswish), *blocks, Conv(96, 64, act=nn.Hardswish))
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class SeparableCSPNeXtBlock(others.CSPNeXtBlock):
    """CSPNeXt's block with ``use_depthwise``."""

    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__(width, shortcut)
        self.conv1 = SeparableConv(width, width, 3)


def rtmdet_nano() -> nn.Module:
    """RTMDet as its smallest configurations have it (rtmdet_nano for persons and hands): depthwise everywhere."""
    model = others.RTMDet()
    for module in model.modules():
        if isinstance(module, others.CSPLayer):
            blocks = (
                SeparableCSPNeXtBlock(each.conv1.conv.in_channels, each.shortcut) for each in module.blocks.children()
            )
            module.blocks = nn.Sequential(*blocks)
    return model


class Affine(nn.Module):
    """PP-HGNetV2's learnable affine block: a number as scale and one as shift."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor([0.9])), nn.Parameter(torch.tensor([0.1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


def relu_affine() -> nn.Module:
    """The activation of every convolution in PP-HGNetV2-B0 to B3."""
    return nn.Sequential(nn.ReLU(), Affine())


class LightConv(nn.Module):
    """1x1 without activation, then depthwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 5) -> None:
        super().__init__()
        self.conv1 = plain(inputs, outputs)
        self.conv2 = Conv(outputs, outputs, kernel, 1, outputs, relu_affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class HGBlock(nn.Module):
    """A chain whose maps are all concatenated, squeezed and excited."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, light: bool, shortcut: bool) -> None:
        super().__init__()
        widths = [inputs, hidden, hidden, hidden]
        self.m = nn.ModuleList(
            LightConv(i, hidden) if light else Conv(i, hidden, 3, act=relu_affine) for i in widths[:-1]
        )
        self.sc = Conv(inputs + 3 * hidden, outputs // 2, act=relu_affine)
        self.ec = Conv(outputs // 2, outputs, act=relu_affine)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.m:
            maps.append(layer(maps[-1]))
        y = self.ec(self.sc(torch.cat(maps, 1)))
        return x + y if self.shortcut else y


class HGStem(nn.Module):
    """A pooled and a convolved branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem1 = Conv(3, width, 3, 2, act=relu_affine)
        self.stem2a = Conv(width, width // 2, 2, padding=0, act=relu_affine)
        self.stem2b = Conv(width // 2, width, 2, padding=0, act=relu_affine)
        self.stem3 = Conv(2 * width, width, 3, 2, act=relu_affine)
        self.stem4 = Conv(width, width, act=relu_affine)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(self.stem1(x), (0, 1, 0, 1))
        y = self.stem2b(functional.pad(self.stem2a(x), (0, 1, 0, 1)))
        return self.stem4(self.stem3(torch.cat([functional.max_pool2d(x, 2, 1), y], 1)))


class HGNetV2(nn.Module):
    """The backbone of D-FINE-S and DEIM-S at a quarter of its width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = HGStem(8)
        stages, inputs = [], 8
        for i, (hidden, outputs, light) in enumerate(((8, 16, False), (8, 32, False), (16, 64, True), (32, 128, True))):
            down = [plain(inputs, inputs, 3, 2, inputs)] if i else []
            blocks = [HGBlock(inputs, hidden, outputs, light=light, shortcut=False)]
            if i == 2:
                blocks.append(HGBlock(outputs, hidden, outputs, light=light, shortcut=True))
            stages.append(nn.Sequential(*down, *blocks))
            inputs = outputs
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]


class Caffe2Bottleneck(nn.Module):
    """ResNet's as Caffe has it: the stride in the first 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = outputs // 4
        self.branch2a = Conv(inputs, hidden, 1, stride, act=nn.ReLU)
        self.branch2b = Conv(hidden, hidden, 3, act=nn.ReLU)
        self.branch2c = plain(hidden, outputs)
        self.branch1 = plain(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch2c(self.branch2b(self.branch2a(x))) + self.branch1(x))


class Caffe2ResNet(nn.Module):
    """ResNet-50 at an eighth of its width."""

    def __init__(self) -> None:
        super().__init__()
        blocks, inputs = [], 8
        for stage, count in enumerate((3, 4, 6, 3)):
            outputs = 32 << stage
            for i in range(count):
                blocks.append(Caffe2Bottleneck(inputs, outputs, 2 if stage and not i else 1))
                inputs = outputs
        self.stem = nn.Sequential(Conv(3, 8, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.avg_pool2d(self.blocks(self.stem(x)), 4).flatten(1))
