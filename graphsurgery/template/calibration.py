"""The calibrated start behind a block: y = scale * block(x) + shift, a number each for every channel."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .template import Template

SCALE_KEY = "calibration.scale"
SHIFT_KEY = "calibration.shift"
"""its parameters, [C] each"""


def calibrated(t: Template, y: gs.Variable) -> gs.Variable:
    """Write scale and shift after the block's output ``y``; they are parameters of the insertion.

    One BatchNormalization, as for all that multiplies and adds by channel: TensorRT makes one Scale layer of it, which
    it folds into a convolution before it by itself, a DLA has it, and onnxruntime runs over the map once.
    """
    return t.per_channel_affine(y, SCALE_KEY, SHIFT_KEY, "calibration")
