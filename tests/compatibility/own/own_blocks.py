"""PyTorch modules of a user's own, as a recipe names them: `own_blocks:ChannelScale`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelScale(nn.Module):
    """One factor a channel, behind a 3 x 3 depthwise convolution: [N, C, H, W] -> [N, C, H, W].

    Weights are drawn as multiples of 1/64, so that no processor rounds them otherwise.
    """

    def __init__(self, channels: int, low: float = 0.5, high: float = 1.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.conv.weight = nn.Parameter(torch.randint(-32, 33, self.conv.weight.shape) / 64)
        self.factor = nn.Parameter(low + (high - low) * torch.randint(0, 65, (channels, 1, 1)) / 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).sigmoid() * self.factor * x
