"""The PyTorch module of a block with what its start puts around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..template.around import Around
from ..template.calibration import SCALE_KEY, SHIFT_KEY
from ..template.residual_gate import GATE_KEY
from .calibrated_module import CalibratedBlock
from .residual_module import ResidualGate
from .state_dict import load_weights


def wrapped(module: nn.Module, channels: int, around: Around) -> nn.Module:
    """A block's module with what stands around it, at its first values."""
    if around.calibrated:
        module = CalibratedBlock(module, channels)
    return ResidualGate(module) if around.gated else module


def with_weights(
    module: nn.Module, channels: int, around: Around, weights: Mapping[str, np.ndarray[Any, Any]]
) -> nn.Module:
    """The same in float64 with the weights of an insertion: the block's by official key, and those around it, which
    have their first values where they are not given.
    """
    outside = around.initial(channels)
    load_weights(module, {key: values for key, values in weights.items() if key not in outside})
    weights = {**outside, **weights}
    module = wrapped(module, channels, around).double()
    inner = module
    with torch.no_grad():
        if isinstance(inner, ResidualGate):
            inner.alpha.copy_(torch.as_tensor(weights[GATE_KEY]))
            inner = inner.block
        if isinstance(inner, CalibratedBlock):
            inner.scale.copy_(torch.as_tensor(weights[SCALE_KEY]))
            inner.shift.copy_(torch.as_tensor(weights[SHIFT_KEY]))
    return module
