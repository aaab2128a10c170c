"""The blocks the way their published PyTorch code computes them, for the export that users have today.

The modules in patterns/modules compute the same with fewer operations. A published form shares the parameters of such
a module and has a forward of its own, written from the formula and from what the sources do with it: the function of
the block's name in one of the published_*.py. A block without one is published in the form of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from benchmarks.lib import published_gates, published_maps, published_transformers

_FILES = (published_gates, published_maps, published_transformers)


class Published(nn.Module):
    """A module with another forward."""

    def __init__(self, own: nn.Module, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.own = own
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return self._forward(self.own, x)


def published(name: str, own: nn.Module) -> nn.Module:
    """The module of a block (with its variant) as published, with the parameters of ``own``."""
    block = name.split("[")[0]
    return Published(own, next(vars(file)[block] for file in _FILES if block in vars(file)))
