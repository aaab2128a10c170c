"""Coordinate Attention, and timm's simple form of it: PyTorch modules.

Paper: "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv:2103.02907.
Sources of the formulas: houqb/CoordAttention, ``coordatt.py``; timm, ``layers/coord_attn.py``, SimpleCoordAttn.

    t(v) = h_swish(BN(W1 v + b1))       h_swish(v) = v * relu6(v + 3) / 6
    y = x * sigmoid(Wh t(mean over W of x) + bh) * sigmoid(Ww t(mean over H of x) + bw)

    simple      t(v) = silu(W1 v + b1)      y = x * sigmoid(Wh t(mean over W of x) + bh + Ww t(mean over H of x) + bw)

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
from torch.nn import functional

from .layers import require_widths


class CoordinateAttention(nn.Module):
    """A gate per row and a gate per column of every channel.

    ``channels``: C. ``hidden``: m. ``bias``: whether the three convolutions have one. ``skip``: add x to the result.
    ``bn_eps``: eps of the BatchNorm. Keys: ``conv1.{weight [m,C,1,1],bias}``, ``bn1.*`` [m],
    ``conv_h.{weight [C,m,1,1],bias}``, ``conv_w.{weight,bias}``. ValueError where a width is below 1.
    """

    def __init__(self, channels: int, hidden: int, bias: bool = True, skip: bool = False, bn_eps: float = 1e-5) -> None:
        super().__init__()
        require_widths("CoordinateAttention", channels, hidden)
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


class SimpleCoordinateAttention(nn.Module):
    """One gate of every position and channel, from its row and its column.

    ``channels``: C. ``hidden``: m. ``bias``: whether the layers have one. ``skip``: add x to the result. Keys:
    ``fc1.{weight [m,C],bias}``, ``fc_h.{weight [C,m],bias}``, ``fc_w.{weight,bias}``. ValueError where a width is below
    1.
    """

    def __init__(self, channels: int, hidden: int, bias: bool = True, skip: bool = False) -> None:
        super().__init__()
        require_widths("SimpleCoordinateAttention", channels, hidden)
        self.skip = skip
        self.fc1 = nn.Linear(channels, hidden, bias=bias)
        self.fc_h = nn.Linear(hidden, channels, bias=bias)
        self.fc_w = nn.Linear(hidden, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        hidden = (functional.silu(self.fc1(x.mean(dim=axis).transpose(1, 2))) for axis in (3, 2))
        rows, columns = (gate(v).transpose(1, 2) for gate, v in zip((self.fc_h, self.fc_w), hidden, strict=True))
        y = x * torch.sigmoid(rows.unsqueeze(3) + columns.unsqueeze(2))
        return x + y if self.skip else y
