"""Blocks of detectors as small torch modules, written from their drawings, and what is recognised in their exports."""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from graphsurgery.recognition import BlockTree
from tests.recognition.recovery import tree_of

OPSET = 17


class Conv(nn.Sequential):
    """Convolution, BatchNormalization and SiLU, or another activation, or None."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        g: int = 1,
        act: type[nn.Module] | None = nn.SiLU,
        bias: bool = False,
    ) -> None:
        super().__init__(nn.Conv2d(c1, c2, k, s, k // 2, groups=g, bias=bias), nn.BatchNorm2d(c2))
        if act is not None:
            self.append(act())


class Residual(nn.Module):
    """x + body(x), or short(x) + body(x), and an activation behind it or none."""

    def __init__(self, body: nn.Module, short: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.short, self.act = body, short or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.short(x) + self.body(x))  # type: ignore[no-any-return]


class Bottleneck(Residual):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, c: int) -> None:
        super().__init__(nn.Sequential(Conv(c, c, 3), Conv(c, c, 3)))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)  # type: ignore[no-any-return]


def traced(model: nn.Module, size: int, opset: int = OPSET) -> onnx.ModelProto:
    """A model of one image of ``size`` pixels as the TorchScript exporter writes it."""
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        image: Any = (torch.rand(1, 3, size, size),)
        torch.onnx.export(model.eval(), image, file, opset_version=opset, dynamo=False)  # type: ignore[arg-type, unused-ignore]
    return onnx.load_from_string(file.getvalue())


def recognised(module: nn.Module, channels: int = 16, opset: int = OPSET) -> BlockTree:
    """What is recognised in a module behind a strided convolution and in front of a MaxPool."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(), module, nn.MaxPool2d(2))
    return tree_of(traced(model, 32, opset))
