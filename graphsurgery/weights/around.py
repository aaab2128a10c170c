"""What stands around a block in a file of weights: the alpha of a residual gate, the scale and shift of a calibration.

An ONNX file has them beside the keys of the block. In a ``state_dict`` they are those of the modules around it, and the
keys of the block begin with ``block.``, once for each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from ..blocks.block import Array, Block
from ..errors import WeightsError
from ..feature_map import FeatureMap
from ..template.calibration import SCALE_KEY, SHIFT_KEY
from ..template.residual_gate import GATE_KEY
from .checkpoint import Checkpoint, widened

_INNER = "block."
CALIBRATION = {"scale": SCALE_KEY, "shift": SHIFT_KEY}
"""key of the module -> key of an insertion"""
_INSERTION = ""
"""what a part is called among the insertions of its file if it is one of them"""


def apart(part: Checkpoint, block: Block, feature: FeatureMap, *, gated: bool) -> tuple[Checkpoint, dict[str, Array]]:
    """The block's own weights, and by key what stands around it.

    A scale and a shift are there or not. With ``gated`` there is an alpha, 0 where the file has none. WeightsError for
    values of another shape.
    """
    arrays, around = dict(part.arrays), dict[str, Array]()
    own, recorded = block.parameters(feature).keys(), _INSERTION in part.inserted
    names = list(CALIBRATION.values() if recorded else CALIBRATION)
    if gated:
        around[GATE_KEY] = _number(arrays.pop(GATE_KEY, np.zeros(1, np.float32)), part)
        arrays = _inside(arrays, own)
    if all(name in arrays for name in names) and (recorded or not _is_bare(arrays, own)):
        around |= {
            key: _by_channel(name, arrays.pop(name), part, feature)
            for key, name in zip(CALIBRATION.values(), names, strict=True)
        }
        arrays = _inside(arrays, own)
    return replace(part, arrays=arrays), around


def _is_bare(arrays: Mapping[str, Array], own: Collection[str]) -> bool:
    """Whether a block has its keys here without anything around it: a block may have a scale itself."""
    return bool(own) and set(own) <= arrays.keys()


def _inside(arrays: Mapping[str, Array], own: Collection[str]) -> dict[str, Array]:
    """By the keys that they have within the module around them, if one is."""
    if _is_bare(arrays, own):
        return dict(arrays)
    return {key.removeprefix(_INNER): values for key, values in arrays.items()}


def _number(alpha: Array, part: Checkpoint) -> Array:
    if alpha.size != 1:
        shape = f"has the shape {list(alpha.shape)}"
        raise WeightsError(f"{GATE_KEY} in {part.name} is the gate's one number, and {shape}")
    return widened(alpha).reshape(1)


def _by_channel(name: str, values: Array, part: Checkpoint, feature: FeatureMap) -> Array:
    if values.shape != (feature.channels,):
        shape = f"{name} in {part.name} has the shape {list(values.shape)}"
        raise WeightsError(f"{shape}; {feature.label} has {feature.channels} channels")
    return widened(values)
