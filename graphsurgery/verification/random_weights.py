"""Other weights for a block than its own, which can hide most of what it computes.

A last layer of zeros (GC, SRM) or a saturated gate (``init="identity"``) gives the same result whatever comes before
it. So the nodes that stand in the file are also run with random weights, and compared with the PyTorch module that has
those; and with weights of which a layer is louder, softer or turned around, where that makes a bound of the block count
(see exercise.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..blocks.block import Block
from ..feature_map import Array
from ..template import weight_folding
from ..template.around import Around
from ..template.calibration import SCALE_KEY, SHIFT_KEY
from ..template.residual_gate import GATE_KEY
from ..template.subgraph import Subgraph
from .cutout import Cutout, constants, with_constants
from .lowering import as_model, lowered

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion

_SEEDS = (71, 72)
_SMALLEST, _LARGEST = 0.3, 0.8
"""of what is added to biases and scales, and taken from them, in turn: enough for hidden values of either sign whatever
a layer makes of the usual inputs, and too little to close a gate"""
_VARIANCE = "running_var"
_AROUND = {SCALE_KEY: (0.5, 2.0), SHIFT_KEY: (-1.0, 1.0), GATE_KEY: (0.5, 1.0)}
"""between what the parameters around a block are drawn"""


@dataclass(frozen=True)
class RandomWeights:
    """The nodes of a block with random weights, and these."""

    cutout: Cutout
    written: onnx.ModelProto
    """the same block as its template writes it with these weights"""
    weights: dict[str, Array]
    """by official key, float64, as the cut-out nodes hold them; with those around the block"""


class Redrawing:
    """Gives a block other weights: random ones, the same ones every time, or its own, trained ones; its gate is open.

    ``own``: the weights that are in the file, by official key.
    """

    def __init__(self, block: Block, insertion: Insertion, cutout: Cutout, model: ModelFile, own: Mapping[str, Array]):
        self._block, self._insertion, self._cutout, self._model, self._own = block, insertion, cutout, model, own
        self._around = Around.of(insertion.gate, insertion.stored).parameters(insertion.feature.channels)
        self._fresh = block.redrawn and insertion.init != "weights"
        self._keep_zeros = False
        self._places = self._found_places()

    @property
    def possible(self) -> bool:
        """Whether the nodes of the file can be given other weights.

        Not where the block has none, or where this version of it would write them as other constants.
        """
        return bool(self._places)

    @property
    def needed(self) -> bool:
        """Whether it is a fresh block, whose weights hide what they will not hide later on."""
        return self._fresh and self._block.has_weights

    @property
    def random(self) -> bool:
        """Whether what it gives a block has nothing of the block's own weights."""
        return self._fresh and self.possible

    @property
    def layers(self) -> list[str]:
        """What the keys of each layer begin with."""
        return list(dict.fromkeys(layer_of(key) for key in self._own if key not in self._around))

    def written(self) -> onnx.ModelProto:
        """The block as its template writes it with its own weights, to see what it should consist of."""
        return as_model(self._lowered(self._own), self._cutout)

    def draw(self, gains: Mapping[str, float] | None = None) -> RandomWeights:
        """Weights of which those of some layers are multiplied by a number; a variance stays as it is."""
        weights = {
            key: values * np.float32((gains or {}).get(layer_of(key), 1.0)) if not key.endswith(_VARIANCE) else values
            for key, values in self._weights(_SEEDS[0]).items()
        }
        subgraph = self._lowered(weights)
        arrays = {constant.name: onnx.numpy_helper.to_array(constant) for constant in _constants(subgraph)}
        shapes = {key: array.shape for key, array in weights.items()}
        stored = {key: subgraph.stored.get(key) or weight_folding.keep(array) for key, array in weights.items()}
        changed = {held: arrays[name] for name, held in self._places.items()}
        read = weight_folding.read_back(stored, shapes, arrays.__getitem__)
        return RandomWeights(with_constants(self._cutout, changed), as_model(subgraph, self._cutout), read)

    def _found_places(self) -> dict[str, str]:
        """A constant that the template writes and that changes with the weights -> its name in the file.

        The others, an epsilon say, stay as they are in the file, and are compared.
        """
        if not self._block.has_weights:
            return {}
        held = self._recorded() | constants(self._cutout.model)
        names = self._insertion.initializers or tuple(held)  # those of a Q/DQ pair may come after the template's own
        for self._keep_zeros in (False, True):
            one, other = (_constants(self._lowered(self._weights(seed))) for seed in _SEEDS)
            changing = [i for i, each in enumerate(one) if each.raw_data != other[i].raw_data]
            orders: list[Sequence[str]] = [[each.name for each in one]]
            orders += [names] if len(names) >= len(one) else []
            for order in orders:
                if changing and all(_alike(held.get(order[i]), one[i]) for i in changing):
                    return {one[i].name: order[i] for i in changing}
        return {}

    def _recorded(self) -> dict[str, onnx.TensorProto]:
        """Constants that the record names: where the nodes no longer read one, the others still get other values."""
        tensors = self._model.structure.graph.initializer
        return {tensor.name: tensor for tensor in tensors if tensor.name in self._insertion.initializers}

    def _weights(self, seed: int) -> dict[str, Array]:
        """Weights near those of a fresh block, none of them at its first value; or its own, and ones next to them."""
        rng = np.random.default_rng(seed)
        first = self._block.initial(self._insertion.feature, rng) if self._fresh else self._own
        found: dict[str, Array] = {}
        for key, start in first.items():
            values = np.asarray(start, dtype=np.float64)
            if not self._fresh:
                found[key] = values if seed == _SEEDS[0] else values * 1.5 + (values == 0)
            elif key.endswith(_VARIANCE):
                found[key] = values * rng.uniform(0.5, 2.0, values.shape)
            elif self._keep_zeros and values.ndim < 2 and not values.any():
                found[key] = values  # a template may leave out what adds them
            else:
                found[key] = values + (_layer if values.ndim > 1 else _vector)(rng, values.shape)
        for key, (low, high) in _AROUND.items():
            if key in self._around:
                found[key] = rng.uniform(low, high, self._around[key])
        return {key: values.astype(np.float32) for key, values in found.items()}

    def _lowered(self, weights: Mapping[str, Array]) -> Subgraph:
        return lowered(self._block, self._insertion, self._cutout, self._model.opset, weights)


def layer_of(key: str) -> str:
    """The layer of a parameter: the key without its last word."""
    return key.rpartition(".")[0] or key


def _layer(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.normal(0.0, 1.0 / np.sqrt(np.prod(shape[1:])), shape))


def _vector(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.uniform(_SMALLEST, _LARGEST, shape) * np.resize([1.0, -1.0], shape))


def _constants(subgraph: Subgraph) -> list[onnx.TensorProto]:
    """What a block computes with, in the order in which its template wrote it: initializers or, for IR 3, nodes."""
    return subgraph.initializers or [node.attribute[0].t for node in subgraph.nodes if node.op_type == "Constant"]


def _alike(a: onnx.TensorProto | None, b: onnx.TensorProto) -> bool:
    return a is not None and a.data_type == b.data_type and a.dims == b.dims
