"""What stands around a block in a file of weights: the alpha of a residual gate, the scale and shift of a calibration.

An ONNX file has them beside the keys of the block. In a ``state_dict`` they are those of the modules around it, and the
keys of the block begin with ``block.``, once for each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..blocks.block import Array, Block
from ..errors import WeightsError
from ..feature_map import FeatureMap
from ..template.calibration import SCALE_KEY, SHIFT_KEY
from ..template.residual_gate import GATE_KEY
from .checkpoint import Checkpoint, widened

_INNER = "block."
_CALIBRATION = {SCALE_KEY: "scale", SHIFT_KEY: "shift"}
"""key in an insertion -> key of the module"""


def apart(part: Checkpoint, block: Block, feature: FeatureMap, *, gated: bool) -> tuple[Checkpoint, dict[str, Array]]:
    """The block's own weights, and by key what stands around it.

    A scale and a shift are there or not. With ``gated`` there is an alpha, 0 where the file has none. WeightsError for
    values of another shape.
    """
    arrays, around = dict(part.arrays), dict[str, Array]()
    if gated:
        alpha = arrays.pop(GATE_KEY, np.zeros(1, np.float32))
        if alpha.size != 1:
            raise WeightsError(
                f"{GATE_KEY} in {part.name} is the gate's one number, and has the shape {list(alpha.shape)}"
            )
        arrays = _inside(arrays)
    own = {block.official_key(key) for key in block.parameters(feature)}
    for names in (tuple(_CALIBRATION), tuple(_CALIBRATION.values())):
        if all(name in arrays and name not in own for name in names):
            for key, name in zip(_CALIBRATION, names, strict=True):
                around[key] = _by_channel(name, arrays.pop(name), part, feature)
            arrays = _inside(arrays)
    if gated:
        around[GATE_KEY] = widened(alpha).reshape(1)
    return replace(part, arrays=arrays), around


def _inside(arrays: dict[str, Array]) -> dict[str, Array]:
    """The keys within the module around them."""
    return {key.removeprefix(_INNER): values for key, values in arrays.items()}


def _by_channel(name: str, values: Array, part: Checkpoint, feature: FeatureMap) -> Array:
    if values.shape != (feature.channels,):
        shape = f"{name} in {part.name} has the shape {list(values.shape)}"
        raise WeightsError(f"{shape}; {feature.label} has {feature.channels} channels")
    return widened(values)
