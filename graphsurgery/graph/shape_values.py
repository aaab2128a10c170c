"""ShapeValues: what the tensors of a model hold that shapes are computed from, as far as it can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx

from ..errors import ModelError
from ..feature_map import Array
from ..modelfile import limits, payload
from ..modelfile.operators import STANDARD, operator
from .index import upstream
from .shape_arithmetic import OPERATORS, Size, compute, sizes


class ShapeValues:
    """Values of tensors, each computed once, when it is asked for.

    Parameters
    ----------
    model:
        The large tensors in it need no data.
    shape_of:
        The shape of a tensor, for Shape and Size; None where it is not known. Asked when a value is computed from it.
    """

    def __init__(self, model: onnx.ModelProto, shape_of: Callable[[str], list[Size] | None]) -> None:
        graph = model.graph
        self._nodes = list(graph.node)
        self._opsets = model.opset_import
        self._shape_of = shape_of
        self._producer = {
            name: node_index for node_index, node in enumerate(self._nodes) for name in node.output if name
        }
        self._initializers = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in self._producer}
        self._known: dict[str, Array | None] = {}
        self._work = 0

    def forget(self) -> None:
        """Compute everything again when it is asked for: shapes are known that were not."""
        self._known.clear()

    def is_computed(self, name: str) -> bool:
        """Whether a node produces the tensor."""
        return name in self._producer

    def of(self, names: Iterable[str]) -> dict[str, Array]:
        """The values of some tensors, without those that have none."""
        wanted = [name for name in names if name]
        for node_index in upstream(wanted, self._producer, self._missing):
            self._compute(self._nodes[node_index])
        return {name: value for name in wanted if (value := self._value(name)) is not None}

    def _missing(self, node_index: int) -> Iterable[str]:
        """The inputs of a node whose values have to be computed first."""
        node = self._nodes[node_index]
        if operator(node) not in OPERATORS or node.output[0] in self._known:
            return ()
        return [name for name in node.input if name not in self._known]

    def _value(self, name: str) -> Array | None:
        if name not in self._known and name in self._initializers:
            self._known[name] = _data(self._initializers[name])
        return self._known.get(name)

    def _compute(self, node: onnx.NodeProto) -> None:
        if len(node.output) != 1 or node.output[0] in self._known:
            return
        value = self._evaluated(node) if node.domain in STANDARD else None
        self._work += 0 if value is None else value.size
        self._known[node.output[0]] = value if self._work <= limits.SHAPE_WORK else None

    def _evaluated(self, node: onnx.NodeProto) -> Array | None:
        if operator(node) == "Constant":
            stored = payload.of_constant(node)
            return None if stored is None else _data(stored)
        if operator(node) in ("Shape", "Size"):
            return self._measured(node)
        values = {name: value for name in node.input if name and (value := self._value(name)) is not None}
        if not values.keys() >= set(filter(None, node.input)):
            return None
        return compute(node, values, self._opsets)

    def _measured(self, node: onnx.NodeProto) -> Array | None:
        """The output of Shape or Size."""
        shape = self._shape_of(node.input[0]) if node.input else None
        if shape is None or len(shape) > limits.SHAPE_ELEMENTS:
            return None
        if operator(node) == "Size":
            return ShapeValues._size(shape)
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        return sizes(shape[bounds.get("start") : bounds.get("end")])

    @staticmethod
    def _size(shape: list[Size]) -> Array | None:
        product = 1
        for size in shape:
            if not isinstance(size, int):
                return None
            product *= size
        return sizes([product]).reshape(()) if product < 2**63 else None


def _data(tensor: onnx.TensorProto) -> Array | None:
    if not tensor.data_type or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return payload.array(tensor)
    except ModelError:  # a tensor whose payload was left out of the copy
        return None
