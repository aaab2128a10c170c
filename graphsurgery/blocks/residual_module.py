"""Residual gate around any block, so that it can be put into a trained network without disturbing it: PyTorch module.

    y = x + alpha * (block(x) - x)

alpha is one learned number, 0 at the start: y is then x exactly wherever block(x) is finite, and the gradient at alpha
is not 0, so that training can open the gate. At alpha = 1 the block stands there alone, up to rounding. Source: the
zero-initialised residual scale of ReZero (arXiv:2003.04887), put on the difference to the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualGate(nn.Module):
    """``block`` behind a gate that starts closed.

    ``block``: a module that keeps the shape of its input. Keys: ``alpha`` [1], and those of the block under ``block.``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.alpha = nn.Parameter(torch.zeros(1))

    def reset_parameters(self) -> None:
        """Close the gate. The block's own parameters stay."""
        nn.init.zeros_(self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = self.block(x)
        return x + self.alpha * (y - x)
