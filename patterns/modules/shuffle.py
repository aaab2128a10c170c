"""Shuffle Attention (SA-Net): PyTorch module.

Paper: "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021, arXiv:2102.00240.
Source of the formula: wofmanaf/SA-Net, ``models/sa_resnet.py``, ``sa_layer``.

The C channels form G groups, each with two halves x0 and x1 of k = C/2G channels, all with the same parameters:

    y0 = x0 * sigmoid(cweight * mean over (H, W) of x0 + cbias)
    y1 = x1 * sigmoid(sweight * GN(x1) + sbias)        GN: k groups of one channel each
    out[2j + i] = y[i * C/2 + j]                       over all C channels of the groups in their order

- G is 64 in the published code; the common YOLO port has ``G=8`` and a ``reduction`` that it does not use.
- Never an identity: the channels are reordered even where every gate is 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Described


class ShuffleAttention(Described):
    """Two kinds of gates in each group of channels, and a shuffle.

    ``channels``: C. ``groups``: G. Keys, with k = C/2G: ``cweight``, ``cbias``, ``sweight``, ``sbias`` [1, k, 1, 1],
    ``gn.{weight,bias}`` [k]. ValueError where 2G does not divide C.
    """

    # a constant map has the variance 0: divided by the root of eps, rounding errors grow 316-fold
    sharp = True
    described_by = ("groups",)

    def __init__(self, channels: int, groups: int = 64) -> None:
        super().__init__()
        if channels < 1 or groups < 1 or channels % (2 * groups):
            raise ValueError(f"ShuffleAttention needs channels in multiples of {2 * groups}, got {channels}")
        self.groups = groups
        half = channels // (2 * groups)
        self.cweight = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.cbias = nn.Parameter(torch.ones(1, half, 1, 1))
        self.sweight = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.sbias = nn.Parameter(torch.ones(1, half, 1, 1))
        self.gn = nn.GroupNorm(half, half)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        batch, channels, height, width = x.shape
        first, second = x.reshape(batch * self.groups, -1, height, width).chunk(2, dim=1)
        first = first * torch.sigmoid(self.cweight * first.mean(dim=(2, 3), keepdim=True) + self.cbias)
        second = second * torch.sigmoid(self.sweight * self.gn(second) + self.sbias)
        y = torch.cat([first, second], dim=1).reshape(batch, 2, channels // 2, height, width)
        return y.transpose(1, 2).reshape(x.shape)
