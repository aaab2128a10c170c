"""A small network whose author put attention into it: squeeze-and-excitation as usual, and SimAM as it is published."""

from __future__ import annotations

import torch
from torch import nn


class SqueezeExcite(nn.Module):
    """Mean, two linear layers, sigmoid, as in most collections."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to the same."""
        n, c, _, _ = x.shape
        return x * self.fc(self.pool(x).view(n, c)).view(n, c, 1, 1).expand_as(x)


class SimAM(nn.Module):
    """A gate from how far each number is from the mean of its channel: no parameters."""

    def __init__(self, e_lambda: float = 1e-4) -> None:
        super().__init__()
        self.e_lambda = e_lambda

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to the same."""
        _, _, h, w = x.shape
        d = (x - x.mean(dim=(2, 3), keepdim=True)) ** 2
        variance = d.sum(dim=(2, 3), keepdim=True) / (h * w - 1)
        return x * torch.sigmoid(d / (4 * (variance + self.e_lambda)) + 0.5)


class Network(nn.Module):
    """Three convolutions, attention behind two of them, and scores for ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU())
        self.stage1 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU())
        self.attention1 = SqueezeExcite(32)
        self.stage2 = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.SiLU())
        self.attention2 = SimAM()
        self.head = nn.Conv2d(32, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [N, 3, H, W] to scores [N, 10, H/8, W/8]."""
        x = self.attention1(self.stage1(self.stem(x)))
        return self.head(self.attention2(self.stage2(x)))
