"""ECA, efficient channel attention: PyTorch module.

Paper: "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020, arXiv:1910.03151.
Source of the formula: BangguWu/ECANet, ``models/eca_module.py``.

    s = mean over (H, W) of x, a sequence of C values        y = x * sigmoid(conv1d(s)), kernel k, zero padding

- The published class takes the number of channels and does not use it: k is 3 unless given, and the published networks
  give it stage by stage. The paper's rule, k the odd number at (log2(C) + 1) / 2, is in ports (timm: at least 3).
- The convolution has no bias; External-Attention's port has one (``bias=True``).
- timm's CecaModule closes the sequence to a ring (``circular=True``), with the same keys.
- Without a bias there is no identity (all zero gives 0.5 * x); with one, weight 0 and bias 20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Redrawable


class ECA(Redrawable):
    """Gate of every channel by the means of the ``kernel`` channels around it.

    ``kernel``: k, odd. Keys: ``conv.weight`` [1, 1, k] and, with ``bias``, ``conv.bias`` [1]. ValueError for an even k.
    """

    described_by = ("circular",)

    def __init__(self, kernel: int = 3, *, bias: bool = False, circular: bool = False) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"ECA needs an odd kernel, got {kernel}")
        self.circular = circular
        self.conv = nn.Conv1d(1, 1, kernel, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        sequence = x.mean(dim=(2, 3)).unsqueeze(1)
        side = self.conv.kernel_size[0] // 2
        sequence = functional.pad(sequence, (side, side), mode="circular" if self.circular else "constant")
        return x * torch.sigmoid(self.conv(sequence)).transpose(1, 2).unsqueeze(3)
