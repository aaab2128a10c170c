"""What a start puts around a block: behind it a scale and a shift of every channel, and around both a residual gate.

y = x + alpha * (scale * block(x) + shift - x)
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from .calibration import SCALE_KEY, SHIFT_KEY, calibrated
from .residual_gate import GATE_KEY, residual
from .template import Array, Template


class Around(NamedTuple):
    """Which of the two there are."""

    calibrated: bool
    gated: bool

    @classmethod
    def of(cls, gate: str, keys: Container[str]) -> Around:
        """By the gate of an insertion and the keys of its parameters, of which the scale and the shift are two."""
        return cls(SCALE_KEY in keys, gate == "residual")

    def initial(self, channels: int) -> dict[str, Array]:
        """A scale and a shift that change nothing, and a closed gate."""
        found: dict[str, Array] = {}
        if self.calibrated:
            found |= {SCALE_KEY: np.ones(channels, np.float32), SHIFT_KEY: np.zeros(channels, np.float32)}
        if self.gated:
            found[GATE_KEY] = np.zeros(1, np.float32)
        return found

    def parameters(self, channels: int) -> dict[str, tuple[int, ...]]:
        """Key -> shape."""
        return {key: values.shape for key, values in self.initial(channels).items()}

    def emit(self, t: Template, y: gs.Variable) -> gs.Variable:
        """Write it after the block's output ``y``."""
        if self.calibrated:
            y = calibrated(t, y)
        return residual(t, y) if self.gated else y
