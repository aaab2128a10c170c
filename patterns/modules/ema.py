"""EMA, Efficient Multi-scale Attention: PyTorch module. It has nothing to do with a moving average of weights.

Paper: "Efficient Multi-Scale Attention Module with Cross-Spatial Learning", ICASSP 2023, arXiv:2305.13563.
Source of the formula: YOLOonMe/EMA-attention-module, ``EMA_attention_module``.

The C channels form G groups of k = C/G; every group g goes through the same layers:

    x1 = GN(g * sigmoid(c1(mean over W of g)) * sigmoid(c1(mean over H of g)))       GN: k groups of one channel each
    x2 = conv3x3(g)
    y = g * sigmoid(sum over channels of p1 * x2 + p2 * x1)        p = softmax over channels of the mean over H and W

- p1 comes from the mean of x1, which is the shift of GN: a constant once trained. It is computed here as published.
- G is 32 in the paper's code, 8 in the YOLO port that most copies follow.
- Identity: ``conv3x3`` with weight 0 and bias 20, ``gn`` with weight and bias 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EfficientMultiscaleAttention(nn.Module):
    """A gate per group of channels.

    ``channels``: C. ``factor``: G, the number of groups. Keys, with k = C/G: ``conv1x1.{weight [k,k,1,1],bias}``,
    ``conv3x3.{weight [k,k,3,3],bias}``, ``gn.{weight,bias}`` [k]. ValueError where G does not divide C.
    """

    # a constant map has the variance 0: divided by the root of eps, rounding errors grow 316-fold
    sharp = True

    def __init__(self, channels: int, factor: int = 32) -> None:
        super().__init__()
        if factor < 1 or channels < 1 or channels % factor:
            raise ValueError(f"EfficientMultiscaleAttention needs a factor that divides {channels}, got {factor}")
        self.groups = factor
        width = channels // factor
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)
        self.gn = nn.GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        batch, channels, height, width = x.shape
        group = x.reshape(batch * self.groups, channels // self.groups, height, width)
        rows = group.mean(dim=3, keepdim=True)
        columns = group.mean(dim=2, keepdim=True).transpose(2, 3)
        rows, columns = self.conv1x1(torch.cat([rows, columns], dim=2)).split([height, width], dim=2)
        pooled = self.gn(group * torch.sigmoid(rows) * torch.sigmoid(columns.transpose(2, 3)))
        convolved = self.conv3x3(group)
        weights = _weights(pooled) * convolved + _weights(convolved) * pooled
        return (group * torch.sigmoid(weights.sum(dim=1, keepdim=True))).reshape(x.shape)

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"factor={self.groups}"


def _weights(x: Tensor) -> Tensor:
    """Softmax over channels of the mean over H and W: [N, k, 1, 1]."""
    return torch.softmax(x.mean(dim=(2, 3), keepdim=True), dim=1)
