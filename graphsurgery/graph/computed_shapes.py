"""Shapes behind what a model computes of other shapes: ``chunk``, ``view`` and ``interpolate`` as exporters write them.

ONNX's inference follows values through some operators (Shape, Gather, Concat) and not through others (Div, Mod, Where):
the ``chunk`` of a C2f, which TorchScript writes as Shape, Gather, Add, Div, Mul and Slice, ends what it knows. Here the
nodes are gone through once, in their order: what is computed of shapes is evaluated, and the nodes behind it are
inferred again, one by one, where the shape of an input has become known.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper, shape_inference

from ..feature_map import Array
from ..modelfile import payload
from ..modelfile.operators import STANDARD
from ..modelfile.subgraphs import subgraphs
from ..modelfile.wire import text
from . import shapes_by_value
from .inference import is_static, miscounts, shaping_inputs
from .output_sizes import domain_of
from .shape_arithmetic import Size, in_part
from .shape_values import ShapeValues
from .shapes_by_value import Shape

_GENERATED = "unk__"
"""how names of sizes start that the inference gives out itself"""


def complete(model: onnx.ModelProto) -> None:
    """Add what follows from computed values to the declared types of ``model``, in place.

    ``model`` is a copy whose shapes were inferred: the large tensors in it have no data.
    """
    completion = _Completion(model)
    for node in model.graph.node:
        completion.visit(node)


class _Completion:
    """The types of one model while its nodes are gone through."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._model = model
        self._declared = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values = ShapeValues(model, self.shape)
        self._improved: set[str] = set()
        self._opsets = [onnx.helper.make_opsetid(domain_of(each), each.version) for each in model.opset_import]
        self._versions = {entry.domain: entry.version for entry in self._opsets}

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor as far as it is known; None for one of unknown rank."""
        if name in self._weights:
            return list(self._weights[name].dims)
        return _shape(self._declared[name].type) if name in self._declared else None

    def visit(self, node: onnx.NodeProto) -> None:
        """Find out what else is known of the outputs of a node."""
        if node.domain not in STANDARD or subgraphs(node) or not any(map(self._is_open, node.output)):
            return
        computed = any(map(self._values.is_computed, shaping_inputs(node)))
        if not computed and self._improved.isdisjoint(node.input):
            return
        values = self._values.of(shaping_inputs(node))
        if not values and self._improved.isdisjoint(node.input):
            return
        numbers = {name: value for name, value in values.items() if not in_part(value)}
        for name, kind in self._inferred(node, numbers).items():
            shape = _shape(kind)
            if name == node.output[0] and len(numbers) < len(values):
                shape = self._by_value(node, values) or shape
            if shape is not None:
                self._improve(name, shape, kind)

    def _is_open(self, name: str) -> bool:
        return bool(name) and not (name in self._declared and is_static(self._declared[name]))

    def _inferred(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> dict[str, onnx.TypeProto]:
        """The types of the outputs of one node, from those of its inputs."""
        if node.op_type == "Split" and miscounts(node):
            return {}
        try:
            schema = onnx.defs.get_schema(node.op_type, self._versions[""], "")
            found: dict[str, onnx.TypeProto] = shape_inference.infer_node_outputs(
                schema,
                node,
                {name: self._type(name) for name in node.input if name},
                {name: numpy_helper.from_array(value, name) for name, value in values.items()},
                opset_imports=self._opsets,
            )
        except Exception:  # it raises whatever it does not like of the node
            return {}
        return found

    def _type(self, name: str) -> onnx.TypeProto:
        if name in self._weights:
            weight = self._weights[name]
            kind: onnx.TypeProto = onnx.helper.make_tensor_type_proto(weight.data_type, weight.dims)
        else:
            kind = self._declared[name].type
        return kind

    def _by_value(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> Shape | None:
        """The shape of the output of a node as far as it follows from values that are known in part."""
        attributes = {attribute.name: payload.attribute_value(attribute) for attribute in node.attribute}
        inputs = [values.get(name) for name in node.input]
        return shapes_by_value.shape(node.op_type, self.shape(node.input[0]), inputs, attributes)

    def _improve(self, name: str, found: Shape, kind: onnx.TypeProto) -> None:
        """Note what has been found of a shape, if it is more than was known."""
        known: Shape = self.shape(name) or [None] * len(found)
        if len(known) != len(found):
            return
        shape = [max(pair, key=_telling) for pair in zip(known, found, strict=True)]
        if not any(_telling(new) > max(_telling(old), 1) for old, new in zip(known, shape, strict=True)):
            return
        if name not in self._declared:
            self._declared[name] = self._model.graph.value_info.add(name=name, type=kind)
        declared = self._declared[name].type.tensor_type
        declared.elem_type = declared.elem_type or kind.tensor_type.elem_type
        declared.shape.CopyFrom(onnx.helper.make_tensor_type_proto(declared.elem_type, shape).tensor_type.shape)
        self._improved.add(name)


def _telling(size: Size) -> int:
    """How much a size tells: a number more than the name that the model gives it, and that more than other names."""
    if size is None:
        return 0
    return 3 if isinstance(size, int) else 1 if size.startswith(_GENERATED) else 2


def _shape(kind: onnx.TypeProto) -> Shape | None:
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return [
        size.dim_value if size.HasField("dim_value") else text(size.dim_param) or None
        for size in kind.tensor_type.shape.dim
    ]
