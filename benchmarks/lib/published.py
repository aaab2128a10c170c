"""The blocks the way their published PyTorch code computes them, for the export that users have today.

The modules in patterns/modules compute the same with fewer operations. A published form shares the parameters of such
a module and has a forward of its own, written from the formula and from what the sources do with it. Blocks that
blocks.forms gives no published form for are published in the form of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from benchmarks.lib import published_gates as gates
from benchmarks.lib import published_maps as maps
from benchmarks.lib import published_transformers as transformers

Forward = Callable[[Any, Tensor], Tensor]
_FORWARDS: dict[str, Forward] = {
    **{
        name: getattr(gates, name)
        for name in ["se", "ese", "eca", "gc", "srm", "lct", "nam", "coordatt", "ela", "mlca"]
    },
    **{
        name: getattr(maps, name)
        for name in [
            "simam",
            "cbam",
            "bam",
            "gam",
            "ema",
            "triplet",
            "shuffle",
            "sge",
            "sk",
            "polarized",
            "cpca",
            "lsk",
        ]
    },
    **{name: getattr(transformers, name) for name in ("aifi", "mhsa", "swin")},
}


class Published(nn.Module):
    """A module with another forward."""

    def __init__(self, twin: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.twin = twin
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return self._forward(self.twin, x)


def published(name: str, twin: nn.Module) -> nn.Module:
    """The module of a block (with its variant) as published, with the parameters of ``twin``."""
    return Published(twin, _FORWARDS[name.split("[")[0]])
