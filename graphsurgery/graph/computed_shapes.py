"""Shapes that ONNX's inference does not find: behind what a model computes of other shapes, and behind operators that
it does not know.

It follows values through some operators (Shape, Gather, Concat) and not through others (Div, Mod, Where): the ``chunk``
of a C2f, which TorchScript writes as Shape, Gather, Add, Div, Mul and Slice, ends what it knows. Here the nodes are
gone through in their order: what is computed of shapes is evaluated, and the nodes behind it are inferred again, one by
one, where the shape of an input has become known. Behind a plugin, weights tell (see weight_shapes.py), or the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import numpy_helper, shape_inference

from ..errors import RequestError, option
from ..feature_map import Array, Dimension
from ..messages import shape_text
from ..modelfile import payload
from ..modelfile.operators import STANDARD
from ..modelfile.subgraphs import subgraphs
from ..modelfile.wire import text
from ..request import Shapes
from . import shapes_by_value
from .inference import is_static, miscounts, shaping_inputs
from .output_sizes import BROADCAST, domain_of
from .shape_arithmetic import OPERATORS, Size, in_part
from .shape_values import ShapeValues
from .shapes_by_value import Shape
from .weight_shapes import TELLING, Weights

_CHANNELS = {3: 2, 4: 1}
"""rank -> the axis of the channels"""
_ROUNDS = 3
"""how often the nodes are gone through back and forth: a Concat tells an input once the others are known"""
_GENERATED = "unk__"
"""how names of sizes start that the inference gives out itself"""


def complete(model: onnx.ModelProto, given: Shapes | None = None) -> None:
    """Add what follows from computed values, from weights and from ``given`` to the declared types, in place.

    ``model`` is a copy whose shapes were inferred: the large tensors in it have no data. RequestError where what is
    given contradicts the model.
    """
    completion = _Completion(model)
    completion.go_through()
    if given:
        completion.take(given)
        completion.go_through()


class _Completion:
    """The types of one model while its nodes are gone through."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._model = model
        self._declared = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values = ShapeValues(model, self.shape)
        self._improved: set[str] = set()
        self._changed: set[str] = set()
        """the tensors of which more is known, or whose values may be others, since their consumers were visited"""
        self._given: Shapes = {}
        self._by_request: set[str] = set()
        """the tensors whose shapes follow from what the user gave"""
        self._opsets = [onnx.helper.make_opsetid(domain_of(each), each.version) for each in model.opset_import]
        self._versions = {entry.domain: entry.version for entry in self._opsets}

    def take(self, given: Shapes) -> None:
        """Take the shapes that the user gave. RequestError where one contradicts what is known."""
        self._given = given
        for name, shape in given.items():
            if self._value(name).type.WhichOneof("value") not in (None, "tensor_type"):
                raise RequestError(f"{option('shapes')} names {name!r}, which is no tensor", option="shapes")
            known = self.shape(name)
            if known is not None and _contradict(known, shape):
                said = f"{option('shapes')} says {shape_text(shape)}"
                raise RequestError(f"{name!r} is {_text(known)} in the model, and {said}", option="shapes")
            self._improve(name, list(shape), onnx.TypeProto())
            self._by_request.add(name)
            self._improved.add(name)
            self._changed.add(name)

    def go_through(self) -> None:
        """Find out what else is known, until nothing is added."""
        self._forwards(everywhere=not self._by_request)
        for _ in range(_ROUNDS):
            self._changed.clear()
            if not self._backwards():
                break
            self._forwards(everywhere=False)

    def _forwards(self, *, everywhere: bool) -> None:
        """What inputs tell of outputs, node by node: of all nodes, or of those behind what has changed."""
        self._values.forget()
        for node in self._model.graph.node:
            if everywhere:
                self._visit(node)
            elif not self._changed.isdisjoint(node.input):
                if node.op_type in ("Shape", "Size") or node.op_type in OPERATORS:
                    self._changed.update(filter(None, node.output))
                self._visit(node)

    def _backwards(self) -> bool:
        """What weights and outputs tell of inputs; whether that was anything."""
        weights, found = Weights(self.shape, self._values.of), False
        for node in reversed(self._model.graph.node):
            if node.op_type in TELLING and node.domain in STANDARD and any(map(self._is_untold, node.input)):
                by_request = not self._by_request.isdisjoint(node.output)
                for tensor, shape, like in weights.facts(node):
                    if self._is_untold(tensor):
                        found = self._take_type(tensor, self._type(like)) or found
                        if shape is not None:
                            found = self._improve(tensor, shape, onnx.TypeProto(), by_request) or found
        return found

    def _is_untold(self, name: str) -> bool:
        """Whether type or rank of a tensor are open, or the channels of a map [N, C, H, W] or of tokens [N, L, C]."""
        if not name or name in self._weights:
            return False
        if name not in self._declared:
            return True
        if self._declared[name].type.WhichOneof("value") not in (None, "tensor_type"):
            return False
        kind = self._declared[name].type.tensor_type
        if not kind.elem_type or not kind.HasField("shape"):
            return True
        sizes = kind.shape.dim
        return len(sizes) in _CHANNELS and not sizes[_CHANNELS[len(sizes)]].HasField("dim_value")

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor as far as it is known; None for one of unknown rank."""
        if name in self._weights:
            return list(self._weights[name].dims)
        return _shape(self._declared[name].type) if name in self._declared else None

    def _visit(self, node: onnx.NodeProto) -> None:
        """Find out what else is known of the outputs of a node."""
        by_request = not self._by_request.isdisjoint(node.input)
        if node.domain not in STANDARD or not (by_request or any(map(self._is_open, node.output))):
            return
        computed = any(map(self._values.is_computed, shaping_inputs(node)))
        if (not computed and self._improved.isdisjoint(node.input)) or subgraphs(node):
            return
        values = self._values.of(shaping_inputs(node))
        if not values and self._improved.isdisjoint(node.input):
            return
        numbers = {name: value for name, value in values.items() if not in_part(value)}
        for name, kind in self._inferred(node, numbers).items():
            shape = _shape(kind) or self._stretched(node)
            if name == node.output[0] and len(numbers) < len(values):
                shape = self._by_value(node, values) or shape
            if shape is not None:
                self._improve(name, shape, kind, by_request)

    def _stretched(self, node: onnx.NodeProto) -> Shape | None:
        """The shape behind an operator that stretches its inputs to one shape, where the rank of one is not known, and
        consumers tell that of the output.
        """
        whole = self.shape(node.output[0])
        if node.op_type not in BROADCAST or whole is None:
            return None
        shapes = [shape for name in node.input if (shape := self.shape(name)) is not None and len(shape) <= len(whole)]
        ones: Shape = [1]
        sizes = zip(*(ones * (len(whole) - len(shape)) + shape for shape in shapes), strict=True)
        return [next((size for size in axis if isinstance(size, int) and size != 1), None) for axis in sizes] or None

    def _is_open(self, name: str) -> bool:
        return bool(name) and not (name in self._declared and is_static(self._declared[name].type))

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
        """What is known of a tensor, which may be nothing."""
        if name in self._weights:
            weight = self._weights[name]
            kind: onnx.TypeProto = onnx.helper.make_tensor_type_proto(weight.data_type, weight.dims)
        else:
            kind = self._declared[name].type if name in self._declared else onnx.TypeProto()
        return kind

    def _by_value(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> Shape | None:
        """The shape of the output of a node as far as it follows from values that are known in part."""
        attributes = {attribute.name: payload.attribute_value(attribute) for attribute in node.attribute}
        inputs = [values.get(name) for name in node.input]
        return shapes_by_value.shape(node.op_type, self.shape(node.input[0]), inputs, attributes)

    def _improve(self, name: str, found: Shape, kind: onnx.TypeProto, by_request: bool = False) -> bool:
        """Note what has been found of a shape, if it is more than was known; whether it is.

        ``by_request``: whether it follows from what the user gave. RequestError if that contradicts the model.
        """
        known: Shape = self.shape(name) or [None] * len(found)
        if by_request:
            if _contradict(known, found):
                where = "as it is given itself" if name in self._given else "in the model"
                made = f"{option('shapes')} makes {name!r} {_text(found)}"
                raise RequestError(f"{made}, and it is {_text(known)} {where}", option="shapes")
            self._by_request.add(name)
        if len(known) != len(found):
            return False
        shape = [max(pair, key=_telling) for pair in zip(known, found, strict=True)]
        more = any(_telling(new) > max(_telling(old), 1) for old, new in zip(known, shape, strict=True))
        ranked = self.shape(name) is None and not all(isinstance(size, str) for size in found)
        if not more and not ranked:
            return False
        self._take_type(name, kind)
        declared = self._value(name).type.tensor_type
        declared.shape.CopyFrom(onnx.helper.make_tensor_type_proto(declared.elem_type, shape).tensor_type.shape)
        self._improved.add(name)
        self._changed.add(name)
        return True

    def _take_type(self, name: str, kind: onnx.TypeProto) -> bool:
        """Note the element type of a tensor, if none was known; whether it is."""
        declared, found = self._value(name).type.tensor_type, kind.tensor_type.elem_type
        if declared.elem_type or not found:
            return False
        declared.elem_type = found
        self._improved.add(name)
        self._changed.add(name)
        return True

    def _value(self, name: str) -> onnx.ValueInfoProto:
        """The declaration of a tensor, which may be a new one."""
        if name not in self._declared:
            self._declared[name] = self._model.graph.value_info.add(name=name)
        declared: onnx.ValueInfoProto = self._declared[name]
        return declared


def _contradict(known: Sequence[Dimension], found: Sequence[Dimension]) -> bool:
    """Whether two shapes cannot be those of one tensor."""
    pairs = zip(known, found, strict=False)
    return len(known) != len(found) or any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _text(shape: Iterable[Size]) -> str:
    """A shape for a message: names that the inference gave out say nothing."""
    return shape_text(None if isinstance(size, str) and size.startswith(_GENERATED) else size for size in shape)


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
