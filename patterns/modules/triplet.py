"""Triplet Attention: PyTorch module.

Paper: "Rotate to Attend: Convolutional Triplet Attention Module", WACV 2021, arXiv:2010.03045.
Source of the formula: landskape-ai/triplet-attention, ``triplet_attention.py``.

    gate(z) = sigmoid(BN(conv7x7([max over axis 1, mean over axis 1])))
    y = x * (g_cw + g_hc + g_hw) / 3

g_cw is the gate of x with C and H exchanged (a plane over C and W), g_hc of x with C and W exchanged (over H and C),
g_hw of x itself. The 7x7 window slides over the channels, too: their order counts.

- The published module multiplies the turned maps, turns them back, adds them and takes a third; the gates are turned
  back and added here, which is the same function.
- ``no_spatial`` of the published module is its first positional argument: a number in a YAML turns g_hw off by mistake.
- An older copy names the gates ``ChannelGateH.spatial`` (cw), ``ChannelGateW.spatial`` (hc), ``SpatialGate.spatial``.
- Identity: every BatchNorm with weight 0 and bias 20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import named


class TripletAttention(nn.Module):
    """Mean of three gates, or of two.

    ``spatial``: whether there is g_hw. ``bn_eps``: eps of the BatchNorms. Keys, for each of ``cw``, ``hc``, ``hw``:
    ``<gate>.conv.conv.weight`` [1, 2, 7, 7], ``<gate>.conv.bn.*`` [1].
    """

    def __init__(self, spatial: bool = True, bn_eps: float = 1e-5) -> None:
        super().__init__()
        self.cw = _Gate(bn_eps)
        self.hc = _Gate(bn_eps)
        self.hw = _Gate(bn_eps) if spatial else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        columns: Tensor = self.cw(x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)
        rows: Tensor = self.hc(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
        gate = columns + rows
        if self.hw is None:
            return x * (gate / 2)
        plane: Tensor = self.hw(x)
        return x * ((gate + plane) / 3)


class _Gate(nn.Module):
    """[N, A, B, D] -> [N, 1, B, D]."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.conv = named(conv=conv, bn=nn.BatchNorm2d(1, eps=bn_eps, momentum=0.01))

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(pooled))
