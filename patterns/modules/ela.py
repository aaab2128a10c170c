"""ELA, Efficient Local Attention: PyTorch modules.

Paper: "ELA: Efficient Local Attention for Deep Convolutional Neural Networks", arXiv:2403.01123.
Sources of the formula: no code by the authors is known; the listing that blogs and forks share, and for the form with
separate layers timm, ``timm/layers/coord_attn.py``, ``EfficientLocalAttn``.

    EfficientLocalAttention    y = x * sigmoid(GN(conv(mean over W of x))) * sigmoid(GN(conv(mean over H of x)))
    SeparateLocalAttention     the same with layers of their own for rows and columns, and sigmoid(silu(.))

- The convolution is one-dimensional, along the strip, with zeros at its ends. Its groups are C (listing, ELA-B, ELA-T),
  C/8 (ELA-S, ELA-L) or 1 (cv-attention, with a bias and one position).
- The normalisation runs over C/groups channels and the strip; C has to be a multiple of its groups.
- Identity: every GroupNorm with weight 0 and bias 20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import depthwise


class EfficientLocalAttention(nn.Module):
    """A gate per row and per column by the same layers.

    ``channels``: C. ``kernel_size``: positions, odd. ``conv_groups`` (default C), ``norm_groups``: see above. ``bias``:
    of the convolution. Keys: ``conv.weight`` [C, C/conv_groups, k], ``conv.bias``, ``gn.{weight,bias}`` [C].
    """

    # a constant map has the variance 0: divided by the root of eps, rounding errors grow 316-fold
    sharp = True

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        conv_groups: int | None = None,
        norm_groups: int = 16,
        bias: bool = False,
    ) -> None:
        super().__init__()
        _odd(kernel_size)
        groups = channels if conv_groups is None else conv_groups
        self.conv = nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=bias)
        self.gn = nn.GroupNorm(norm_groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        rows = torch.sigmoid(self.gn(self.conv(x.mean(dim=3)))).unsqueeze(3)
        columns = torch.sigmoid(self.gn(self.conv(x.mean(dim=2)))).unsqueeze(2)
        return x * rows * columns


class SeparateLocalAttention(nn.Module):
    """A gate per row and per column by layers of their own.

    ``channels``: C. ``kernel_size``: positions, odd. ``norm_groups``: 1 in timm. ``skip``: add x to the result. Keys:
    ``conv_h.weight`` [C,1,k,1], ``conv_w.weight`` [C,1,1,k], ``norm_h.{weight,bias}``, ``norm_w.{weight,bias}`` [C].
    """

    # a constant map has the variance 0: divided by the root of eps, rounding errors grow 316-fold
    sharp = True

    def __init__(self, channels: int, kernel_size: int = 7, norm_groups: int = 1, skip: bool = False) -> None:
        super().__init__()
        _odd(kernel_size)
        self.skip = skip
        self.conv_h = depthwise(channels, (kernel_size, 1), bias=False)
        self.conv_w = depthwise(channels, (1, kernel_size), bias=False)
        self.norm_h = nn.GroupNorm(norm_groups, channels)
        self.norm_w = nn.GroupNorm(norm_groups, channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        rows = self.act(self.norm_h(self.conv_h(x.mean(dim=3, keepdim=True))))
        columns = self.act(self.norm_w(self.conv_w(x.mean(dim=2, keepdim=True))))
        y = x * torch.sigmoid(rows) * torch.sigmoid(columns)
        return x + y if self.skip else y


def _odd(kernel_size: int) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"ELA has odd kernels, not {kernel_size}")
