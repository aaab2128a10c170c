"""Random weights for a block that has not been trained: fresh ones can hide most of what it computes.

A last layer of zeros (GC, SRM) or a saturated gate (``init="identity"``) gives the same result whatever comes before
it. So the nodes that stand in the file are also run with random weights, and compared with the PyTorch module that has
those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..blocks.block import Block
from ..feature_map import Array
from ..template import weight_folding
from ..template.residual_gate import GATE_KEY
from ..template.subgraph import Subgraph
from ..userblocks.inserted import block_of
from .cutout import Cutout, constants, with_constants
from .lowering import lowered

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion

_SEEDS = (71, 72)
_SMALLEST, _LARGEST = 0.3, 0.8
"""of what is added to biases and scales, and taken from them, in turn: enough for hidden values of either sign whatever
a layer makes of the usual inputs, and too little to close a gate"""


@dataclass(frozen=True)
class RandomWeights:
    """The nodes of a block with random weights, and these."""

    cutout: Cutout
    weights: dict[str, Array]
    """by official key, float64, as the cut-out nodes hold them; with alpha where there is a residual gate"""


def draw_weights(insertion: Insertion, cutout: Cutout, model: ModelFile) -> RandomWeights | None:
    """Give a block random weights, the same ones every time; its residual gate is open.

    None for a block that holds trained weights, or none at all, and for one that this version of the block would write
    with other constants.
    """
    if insertion.init == "weights" or not (block := block_of(insertion)).redrawn or not block.has_weights:
        return None
    held = constants(cutout.model)
    names = insertion.initializers or tuple(held)  # those of a Q/DQ pair may come after the template's own
    for keep_zeros in (False, True):
        weights, other = (_weights(block, insertion, seed, keep_zeros=keep_zeros) for seed in _SEEDS)
        subgraph = lowered(block, insertion, cutout, model.opset, weights)
        written = _constants(subgraph)
        pairs = list(zip(names, written, strict=False))
        if len(written) == len(pairs) and all(_alike(held.get(name), constant) for name, constant in pairs):
            break
    else:
        return None
    again = _constants(lowered(block, insertion, cutout, model.opset, other))
    arrays = {constant.name: onnx.numpy_helper.to_array(constant) for constant in written}
    # what does not change with the weights, an epsilon say, stays as it is in the file, and is compared
    changed = {
        name: arrays[one.name] for (name, one), two in zip(pairs, again, strict=False) if one.raw_data != two.raw_data
    }
    shapes = {key: array.shape for key, array in weights.items()}
    stored = {key: subgraph.stored.get(key) or weight_folding.keep(array) for key, array in weights.items()}
    return RandomWeights(with_constants(cutout, changed), weight_folding.read_back(stored, shapes, arrays.__getitem__))


def _weights(block: Block, insertion: Insertion, seed: int, *, keep_zeros: bool) -> dict[str, Array]:
    """Weights near those of a fresh block, none of them at its first value.

    ``keep_zeros``: vectors of zeros stay so, because a template may leave out what adds them.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for key, first in block.initial(insertion.feature, rng).items():
        values = np.asarray(first, dtype=np.float64)
        if key.endswith("running_var"):
            found[key] = values * rng.uniform(0.5, 2.0, values.shape)
        elif keep_zeros and values.ndim < 2 and not values.any():
            found[key] = values
        else:
            found[key] = values + (_layer if values.ndim > 1 else _vector)(rng, values.shape)
    if insertion.gate == "residual":
        found[GATE_KEY] = rng.uniform(0.5, 1.0, 1)
    return {key: values.astype(np.float32) for key, values in found.items()}


def _layer(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.normal(0.0, 1.0 / np.sqrt(np.prod(shape[1:])), shape))


def _vector(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.uniform(_SMALLEST, _LARGEST, shape) * np.resize([1.0, -1.0], shape))


def _constants(subgraph: Subgraph) -> list[onnx.TensorProto]:
    """What a block computes with, in the order in which its template wrote it: initializers or, for IR 3, nodes."""
    return subgraph.initializers or [node.attribute[0].t for node in subgraph.nodes if node.op_type == "Constant"]


def _alike(a: onnx.TensorProto | None, b: onnx.TensorProto) -> bool:
    return a is not None and a.data_type == b.data_type and a.dims == b.dims
