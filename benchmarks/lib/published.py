"""SimAM, SE and NAM the way the published PyTorch code computes them, for the export that its users have today.

The modules in patterns/modules compute the same with fewer operations. Formulas: see there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PublishedSimAM(nn.Module):
    """The sum of squares over H*W - 1, and the whole map divided by it."""

    def __init__(self, e_lambda: float) -> None:
        super().__init__()
        self.e_lambda = e_lambda

    def forward(self, x: Tensor) -> Tensor:
        free = x.shape[2] * x.shape[3] - 1
        square = (x - x.mean(dim=[2, 3], keepdim=True)).pow(2)
        energy = square / (4 * (square.sum(dim=[2, 3], keepdim=True) / free + self.e_lambda)) + 0.5
        return x * torch.sigmoid(energy)


class PublishedSE(nn.Module):
    """The linear layers of the layer that most detectors copy (its authors published Caffe), with view and expand."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        inner: Any = twin
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(_linear(inner.fc1), nn.ReLU(), _linear(inner.fc2), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        gate = self.fc(self.pool(x).view(batch, channels)).view(batch, channels, 1, 1)
        return x * gate.expand_as(x)


def _linear(convolution: nn.Conv2d) -> nn.Linear:
    """A linear layer with the weights of a 1x1 convolution."""
    layer = nn.Linear(convolution.in_channels, convolution.out_channels, bias=convolution.bias is not None)
    layer.load_state_dict({key: v.flatten(1) if v.ndim == 4 else v for key, v in convolution.state_dict().items()})
    return layer


class PublishedNAM(nn.Module):
    """The weights are multiplied on with the channels last; so is the spatial part of the forks."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, x: Tensor) -> Tensor:
        twin: Any = self.twin
        y = self._weigh(x, twin.Channel_Att.bn2)
        if twin.Spatial_Att is None:
            return y
        batch, channels, height, width = y.shape
        positions = y.permute(0, 2, 3, 1).reshape(batch, height * width, 1, channels)
        gate = twin.Spatial_Att.bn2(positions) * self._weights(twin.Spatial_Att.bn2).reshape(1, -1, 1, 1)
        gate = gate.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return y * torch.sigmoid(gate)

    def _weigh(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        last = norm(x).permute(0, 2, 3, 1).contiguous()
        first = torch.mul(self._weights(norm), last).permute(0, 3, 1, 2).contiguous()
        return torch.sigmoid(first) * x

    @staticmethod
    def _weights(norm: nn.BatchNorm2d) -> Tensor:
        scale = norm.weight.detach().abs()
        return scale / scale.sum()


def published(name: str, twin: Any) -> nn.Module:
    """The module of a block as published; the twin itself where its code is that already."""
    if name == "simam":
        return PublishedSimAM(twin.e_lambda)
    if name == "se":
        return PublishedSE(twin)
    return PublishedNAM(twin) if name.startswith("nam") else twin
