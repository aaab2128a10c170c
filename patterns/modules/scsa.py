"""SCSA, Spatial and Channel Synergistic Attention: PyTorch module.

Paper: "SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention", arXiv:2407.05128.
Source of the formula: HZAI-ZJNU/SCSA, ``mmpretrain/models/attentions/SCSA.py``, with average pooling.

    z = x * sigmoid(GN_h(dw(mean over W of x))) * sigmoid(GN_w(dw(mean over H of x)))
    n = GN1(mean over windows of z)        q, k, v = n times one number per channel each, [N, heads, d, positions]
    y = z * sigmoid(mean over positions of softmax(q k^T / sqrt(d)) v)

``dw`` has kernels of 3, 5, 7 and 9 positions for the four quarters of the channels; rows and columns share them. GN_h
and GN_w normalise each quarter over its strip, GN1 the whole map. The attention is among the d channels of a head.

- The published assertion on C tests nothing; a multiple of 4 and of the heads is needed. Maps are at least a window
  large.
- Identity: ``norm_h``, ``norm_w`` and ``norm`` with weight 0 and bias 20, ``v.weight`` 1.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional


class SpatialChannelSynergisticAttention(nn.Module):
    """Gates per row and column, then per channel.

    ``channels``: C, a multiple of 4 and of ``head_num``. ``window_size``: side of the windows, in positions.
    ``qkv_bias``: whether q, k and v have biases. ValueError for settings that do not fit together.

    Keys: ``local_dwc``, ``global_dwc_s``, ``global_dwc_m``, ``global_dwc_l`` ``.{weight [C/4,1,k],bias}`` for k = 3, 5,
    7, 9; ``norm_h``, ``norm_w``, ``norm`` ``.{weight,bias}`` [C]; ``q``, ``k``, ``v`` ``.weight`` [C,1,1,1].
    """

    # a constant map has the variance 0: divided by the root of eps, rounding errors grow 316-fold
    sharp = True

    def __init__(self, channels: int, head_num: int = 8, window_size: int = 7, qkv_bias: bool = False) -> None:
        super().__init__()
        if channels < 1 or head_num < 1 or channels % 4 or channels % head_num:
            raise ValueError(f"SCSA needs channels in multiples of 4 and of {head_num}, got {channels}")
        if window_size < 1:
            raise ValueError(f"SCSA needs windows of at least 1, got {window_size}")
        self.heads = head_num
        self.window = window_size
        quarter = channels // 4
        self.local_dwc = nn.Conv1d(quarter, quarter, 3, padding=1, groups=quarter)
        self.global_dwc_s = nn.Conv1d(quarter, quarter, 5, padding=2, groups=quarter)
        self.global_dwc_m = nn.Conv1d(quarter, quarter, 7, padding=3, groups=quarter)
        self.global_dwc_l = nn.Conv1d(quarter, quarter, 9, padding=4, groups=quarter)
        self.norm_h = nn.GroupNorm(4, channels)
        self.norm_w = nn.GroupNorm(4, channels)
        self.norm = nn.GroupNorm(1, channels)
        self.q = nn.Conv2d(channels, channels, 1, groups=channels, bias=qkv_bias)
        self.k = nn.Conv2d(channels, channels, 1, groups=channels, bias=qkv_bias)
        self.v = nn.Conv2d(channels, channels, 1, groups=channels, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]; H and W at least a window."""
        batch, channels = x.shape[:2]
        rows = torch.sigmoid(self.norm_h(self._context(x.mean(dim=3)))).unsqueeze(3)
        columns = torch.sigmoid(self.norm_w(self._context(x.mean(dim=2)))).unsqueeze(2)
        z = x * rows * columns
        normal = self.norm(functional.avg_pool2d(z, self.window, stride=self.window))
        query, key, value = (
            layer(normal).reshape(batch, self.heads, channels // self.heads, -1) for layer in (self.q, self.k, self.v)
        )
        attention = torch.softmax(query @ key.transpose(2, 3) / sqrt(query.shape[2]), dim=3)
        gate = torch.sigmoid((attention @ value).mean(dim=3).flatten(1))
        return z * gate.unsqueeze(2).unsqueeze(3)

    def _context(self, strip: Tensor) -> Tensor:
        """[N, C, L] -> [N, C, L]."""
        layers = (self.local_dwc, self.global_dwc_s, self.global_dwc_m, self.global_dwc_l)
        parts = strip.chunk(4, dim=1)
        return torch.cat([layer(part) for layer, part in zip(layers, parts, strict=True)], dim=1)
