"""A scale and a shift of every channel behind any block, measured on images: PyTorch module.

    y = scale * block(x) + shift

scale and shift are [C]. They give each channel the mean and deviation back that it has without the block, so that what
comes behind meets values of the size that it knows; then they are trained like all else. Every parameter of the block
has a gradient, which a saturated gate has not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CalibratedBlock(nn.Module):
    """``block`` with a scale and a shift of every channel behind it; 1 and 0 at first.

    ``block``: a module that keeps the shape of its input; ``channels``: C. Keys: ``scale`` [C], ``shift`` [C], and
    those of the block under ``block.``.
    """

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block = block
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def reset_parameters(self) -> None:
        """Let the block's output through as it is."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.shift)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = self.block(x)
        return y * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
