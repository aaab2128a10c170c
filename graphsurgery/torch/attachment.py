"""The module of an attached block, with what its start puts around it."""

from __future__ import annotations

from torch import nn

from ..blocks.calibrated_module import CalibratedBlock
from ..blocks.residual_module import ResidualGate


def wrapped(module: nn.Module, channels: int, *, init: str, gate: str) -> nn.Module:
    """A block's module with what its start puts around it."""
    if init == "calibrated":
        module = CalibratedBlock(module, channels)
    return ResidualGate(module) if gate == "residual" else module
