"""The residual gate: y = x + alpha * (block(x) - x). With alpha = 0, where it starts, any block leaves x as it is."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .template import Template

GATE_KEY = "alpha"
"""the gate's one parameter"""


def residual(t: Template, y: gs.Variable) -> gs.Variable:
    """Write the gate after the block's output ``y``; alpha is a parameter of the insertion, shape [1]."""
    step = t.mul(t.sub(y, t.x), t.weight(GATE_KEY, (1, 1, 1, 1)))
    return t.add(t.x, step)
