"""Work of a whole model: its multiply-accumulates and its largest activation, by the shapes that are known of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx

from ..cards.work import macs_of
from ..graph.index import GraphIndex
from ..graph.shapes import ShapeTable
from ..graph.written_out import without_calls
from ..modelfile.model import ModelFile
from ..request import Shapes


@dataclass(frozen=True)
class Activation:
    """The largest tensor that a node hands to others."""

    shape: tuple[int, ...]
    bytes: int


class WholeWork:
    """What a model takes for inputs of known sizes. Nodes inside of If, Loop and Scan are not counted.

    Parameters
    ----------
    model:
        A model, its calls of functions included.
    sizes:
        Input name -> sizes, for inputs that the model leaves open.
    """

    def __init__(self, model: ModelFile, sizes: Shapes) -> None:
        flat = without_calls(model, always=bool(model.structure.functions))
        self.index = GraphIndex(flat)
        self.shapes = ShapeTable(self.index, sizes)
        self.shapes.infer()
        graph = flat.structure.graph
        self._weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._results = {value.name for value in graph.output}

    @property
    def macs(self) -> int | None:
        """Multiplications with an addition each, of convolutions and matrix products; None where one's sizes are not
        known.
        """
        try:
            return sum(macs_of(node, self._shapes_at(node)) for node in self.index.nodes)
        except KeyError:
            return None

    def largest(self, names: Iterable[str] | None = None) -> Activation | None:
        """The largest activation of known size, of the whole model or of the nodes of these names; outputs of the model
        are none.
        """
        chosen = None if names is None else set(names)
        found = []
        for node in self.index.nodes:
            if node.op_type != "Constant" and (chosen is None or node.name in chosen):
                found += [each for name in node.output if name and (each := self._activation(name)) is not None]
        return max(found, key=lambda each: each.bytes, default=None)

    def _activation(self, name: str) -> Activation | None:
        kind, shape = self.shapes.lookup(name)
        known = _known(shape)
        if known is None or name in self._results or not kind:
            return None
        width = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize
        return Activation(known, prod(known) * width)

    def _shapes_at(self, node: onnx.NodeProto) -> dict[str, tuple[int, ...]]:
        found = {}
        for name in (*node.input, *node.output):
            known = self._weights.get(name) if name in self._weights else _known(self.shapes.lookup(name)[1])
            if name and known is not None:
                found[name] = known
        return found


def _known(shape: Any) -> tuple[int, ...] | None:
    """A shape all of whose sizes are numbers."""
    return tuple(shape) if shape is not None and all(isinstance(size, int) for size in shape) else None
