"""SCSA, Spatial and Channel Synergistic Attention: PyTorch module.

Paper: "SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention", arXiv:2407.05128.
Source of the formula: HZAI-ZJNU/SCSA, ``mmpretrain/models/attentions/SCSA.py``.

    z = x * sigmoid(GN_h(dw(mean over W of x))) * sigmoid(GN_w(dw(mean over H of x)))
    n = GN1(mean over windows of z)        q, k, v = n times one number per channel each, [N, heads, d, positions]
    y = z * sigmoid(mean over positions of softmax(q k^T / sqrt(d)) v)

``dw`` has kernels of 3, 5, 7 and 9 positions for the four quarters of the channels; rows and columns share them. GN_h
and GN_w normalise each quarter over its strip, GN1 the whole map. The attention is among the d channels of a head.

The class has modes: the maximum of a window, or a linear map of all that is in it (``conv_d``), in the place of its
mean; one window over the whole map, averaged (``window_size`` -1); and softmax in the place of every sigmoid, over the
rows, over the columns, and over the channels.

- The linear map of a window calls a function that the published class lacks. Its copies order what is in a window by
  channel, row and column, and demand that windows divide the map, as this does.
- The published assertion on C tests nothing; a multiple of 4 and of the heads is needed. Maps are at least a window
  large.
- Identity: ``norm_h``, ``norm_w`` and ``norm`` with weight 0 and bias 20, ``v.weight`` 1; with softmax there is none.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import tracing

_MODES = ("avg_pool", "max_pool", "recombination")
_GATES = ("sigmoid", "softmax")


class SpatialChannelSynergisticAttention(nn.Module):
    """Gates per row and column, then per channel.

    ``channels``: C, a multiple of 4 and of ``head_num``. ``window_size``: w, the side of the windows in positions, or
    -1. ``qkv_bias``: whether q, k and v have biases. ``group_kernel_sizes``: k, odd, for the four quarters.
    ``down_sample_mode``: ``"avg_pool"``, ``"max_pool"`` or ``"recombination"``. ``gate_layer``: ``"sigmoid"`` or
    ``"softmax"``. ValueError for settings that do not fit together.

    Keys: ``local_dwc``, ``global_dwc_s``, ``global_dwc_m``, ``global_dwc_l`` ``.{weight [C/4,1,k],bias}`` for k = 3, 5,
    7, 9 by default; ``norm_h``, ``norm_w``, ``norm`` ``.{weight,bias}`` [C]; ``q``, ``k``, ``v`` ``.weight`` [C,1,1,1];
    recombination: ``conv_d.weight`` [C,C*w*w,1,1].
    """

    # a constant map has the variance 0: divided by the root of eps, rounding errors grow 316-fold
    sharp = True

    def __init__(
        self,
        channels: int,
        head_num: int = 8,
        window_size: int = 7,
        qkv_bias: bool = False,
        group_kernel_sizes: str = "3,5,7,9",
        down_sample_mode: str = "avg_pool",
        gate_layer: str = "sigmoid",
    ) -> None:
        super().__init__()
        if channels < 1 or head_num < 1 or channels % 4 or channels % head_num:
            raise ValueError(f"SCSA needs channels in multiples of 4 and of {head_num}, got {channels}")
        if window_size < 1 and window_size != -1:
            raise ValueError(f"SCSA needs windows of at least 1, or -1, got {window_size}")
        kernels = [int(size) for size in group_kernel_sizes.split(",")]
        if len(kernels) != 4 or any(size % 2 == 0 for size in kernels):
            raise ValueError(f"SCSA needs four odd kernels, got {group_kernel_sizes}")
        if down_sample_mode not in _MODES or gate_layer not in _GATES:
            known = f"the modes {', '.join(_MODES)} and the gates {', '.join(_GATES)}"
            raise ValueError(f"SCSA has {known}, not {down_sample_mode!r} and {gate_layer!r}")
        self.heads = head_num
        self.window = window_size
        quarter = channels // 4
        self.mode = down_sample_mode if window_size > 0 else "whole map"
        self.softmax = gate_layer == "softmax"
        self.local_dwc, self.global_dwc_s, self.global_dwc_m, self.global_dwc_l = (
            nn.Conv1d(quarter, quarter, size, padding=size // 2, groups=quarter) for size in kernels
        )
        self.norm_h = nn.GroupNorm(4, channels)
        self.norm_w = nn.GroupNorm(4, channels)
        self.norm = nn.GroupNorm(1, channels)
        self.q = nn.Conv2d(channels, channels, 1, groups=channels, bias=qkv_bias)
        self.k = nn.Conv2d(channels, channels, 1, groups=channels, bias=qkv_bias)
        self.v = nn.Conv2d(channels, channels, 1, groups=channels, bias=qkv_bias)
        if self.mode == "recombination":
            self.conv_d = nn.Conv2d(channels * window_size**2, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]; H and W at least a window. ValueError where windows that are recombined do not
        divide them.
        """
        batch, channels = x.shape[:2]
        rows = self._gate(self.norm_h(self._context(x.mean(dim=3))), 2).unsqueeze(3)
        columns = self._gate(self.norm_w(self._context(x.mean(dim=2))), 2).unsqueeze(2)
        z = x * rows * columns
        normal = self.norm(self._downsampled(z))
        query, key, value = (
            layer(normal).reshape(batch, self.heads, channels // self.heads, -1) for layer in (self.q, self.k, self.v)
        )
        attention = torch.softmax(query @ key.transpose(2, 3) / sqrt(query.shape[2]), dim=3)
        gate = self._gate((attention @ value).mean(dim=3).flatten(1), 1)
        return z * gate.unsqueeze(2).unsqueeze(3)

    def _gate(self, logits: Tensor, axis: int) -> Tensor:
        return torch.softmax(logits, dim=axis) if self.softmax else torch.sigmoid(logits)

    def _downsampled(self, z: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, h, w], one position for each window."""
        if self.mode == "whole map":
            return z.mean(dim=(2, 3), keepdim=True)
        if self.mode == "recombination":
            if not tracing() and (z.shape[2] % self.window or z.shape[3] % self.window):
                raise ValueError(f"windows of {self.window} do not divide a map of {z.shape[2]}x{z.shape[3]}")
            recombined: Tensor = self.conv_d(functional.pixel_unshuffle(z, self.window))
            return recombined
        pool = functional.max_pool2d if self.mode == "max_pool" else functional.avg_pool2d
        return pool(z, self.window, stride=self.window)

    def _context(self, strip: Tensor) -> Tensor:
        """[N, C, L] -> [N, C, L]."""
        layers = (self.local_dwc, self.global_dwc_s, self.global_dwc_m, self.global_dwc_l)
        parts = strip.chunk(4, dim=1)
        return torch.cat([layer(part) for layer, part in zip(layers, parts, strict=True)], dim=1)
