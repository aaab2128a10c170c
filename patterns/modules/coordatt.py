"""Coordinate Attention: PyTorch module.

Paper: "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv:2103.02907.
Source of the formula: houqb/CoordAttention, ``coordatt.py``.

    t(v) = h_swish(BN(W1 v + b1))       h_swish(v) = v * relu6(v + 3) / 6
    y = x * sigmoid(Wh t(mean over W of x) + bh) * sigmoid(Ww t(mean over H of x) + bw)

- The published code joins both means along the height for one call of ``conv1``, and so does this module: in training
  the BatchNorm takes its statistics over rows and columns together.
- The hidden width is max(8, C/32) there, C/24 rounded to a multiple of 8 in timm, which also has no biases; hence
  ``hidden`` and ``bias`` are given.
- An older copy (``mbv2_ca.py``) names the last two convolutions ``conv2`` (rows) and ``conv3`` (columns).
- Identity: ``conv_h`` and ``conv_w`` with weights 0 and biases 20; none without biases.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CoordinateAttention(nn.Module):
    """A gate per row and a gate per column of every channel.

    ``channels``: C. ``hidden``: m. ``bias``: whether the three convolutions have one. ``skip``: add x to the result.
    ``bn_eps``: eps of the BatchNorm. Keys: ``conv1.{weight [m,C,1,1],bias}``, ``bn1.*`` [m],
    ``conv_h.{weight [C,m,1,1],bias}``, ``conv_w.{weight,bias}``. ValueError where a width is below 1.
    """

    def __init__(self, channels: int, hidden: int, bias: bool = True, skip: bool = False, bn_eps: float = 1e-5) -> None:
        super().__init__()
        if channels < 1 or hidden < 1:
            raise ValueError(f"CoordinateAttention needs channels and hidden of at least 1, got {channels}, {hidden}")
        self.skip = skip
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(hidden, eps=bn_eps)
        self.act = nn.Hardswish()
        self.conv_h = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.conv_w = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        height, width = x.shape[2:]
        rows = x.mean(dim=3, keepdim=True)
        columns = x.mean(dim=2, keepdim=True).transpose(2, 3)
        hidden = self.act(self.bn1(self.conv1(torch.cat([rows, columns], dim=2))))
        rows, columns = hidden.split([height, width], dim=2)
        y = x * torch.sigmoid(self.conv_h(rows)) * torch.sigmoid(self.conv_w(columns.transpose(2, 3)))
        return x + y if self.skip else y
