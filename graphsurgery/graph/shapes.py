"""Shapes and element types of tensors: from the model, or inferred on a copy of it without weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias, TypeVar

import onnx

from ..errors import ModelError, RequestError, option
from ..feature_map import Dimension, float_dtype
from ..messages import closest, shape_text
from ..modelfile.operators import STANDARD
from ..modelfile.wire import text
from ..request import Shapes
from . import local_functions
from .contrib_shapes import use_stand_ins
from .index import GraphIndex
from .inference import infer, is_static
from .shape_constants import fold_shapes

TensorType: TypeAlias = tuple[int, tuple[Dimension, ...] | None]
"""element type number, and shape where it is known"""

_UNKNOWN: TensorType = (0, None)
_Read = TypeVar("_Read")


class ShapeTable:
    """Types of tensors, taken from the model where it states them in full, else inferred.

    For the first tensor that needs it, what the tensor depends on is inferred; for the second, the whole model; for the
    first, too, where consumers may tell more than what it depends on. Nothing in this project takes more memory: where
    a whole model is looked at, that comes first. ``given``: shapes that the user knows, by tensor.
    """

    def __init__(self, index: GraphIndex, given: Shapes = MappingProxyType({})) -> None:
        self._index = index
        self._model = index.model.structure
        self._given: dict[str, tuple[Dimension, ...]] = {}
        self._of_part: dict[str, TensorType] | None = None
        self._found: dict[str, TensorType] = {}
        self._no_tensors: set[str] = set()
        """sequences, maps and optional values, as far as they were inferred"""
        self.give(given)

    @property
    def given(self) -> Shapes:
        """The shapes that the user knows, by tensor."""
        return self._given

    def give(self, shapes: Shapes) -> None:
        """Take more of these, before any shape is asked for. RequestError for a tensor that the model does not compute,
        for one that was given another shape, and for shapes that contradict the model.
        """
        new = shapes.keys() - self._given.keys()
        for name, shape in shapes.items():
            self._check_name(name)
            if self._given.setdefault(name, shape) != shape:
                other = f"{shape_text(self._given[name])} elsewhere and {shape_text(shape)} here"
                raise RequestError(f"{option('shapes')} says two shapes of {name!r}: {other}", option="shapes")
        if new:
            self._everything = self._infer_everything()

    def _check_name(self, name: str) -> None:
        index = self._index
        if name in index.producer or name in index.inputs:
            return
        given = f"{option('shapes')} names the tensor {name!r}, which"
        if name in index.initializers:
            raise RequestError(f"{given} is a weight of {index.model.name}: its shape is known", option="shapes")
        near = closest(name, [*index.inputs, *index.producer])
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise RequestError(f"{given} {index.model.name} does not have{hint}", option="shapes", candidates=near)

    @cached_property
    def _declared(self) -> dict[str, onnx.TypeProto]:
        return _types(self._model.graph)

    def _inferred(self, tensor: str) -> TensorType:
        if self._of_part is None and not self.given:  # with shapes that are given, what contradicts the model is said
            part = self._part(tensor)
            foreign = any(map(self._is_foreign, part.graph.node))
            self._of_part = {} if foreign else self._types_in(_inferred_in_place(_without_calls(part), self.given))
        found = (self._of_part or {}).get(tensor, _UNKNOWN)
        return found if _tell(*found) else self._everything.get(tensor, _UNKNOWN)

    def infer(self) -> None:
        """Infer the whole model at once, if the type of any activation has to be: for whoever asks for most of them."""
        names = (name for node_index in self._index.active for name in self._index.named_outputs[node_index])
        if not all(_is_complete(tensor_type(self._declared.get(name))) for name in names):
            self._of_part = {}
            self._found.clear()
            _ = self._everything  # now, while there is little else in memory

    def _is_foreign(self, node: onnx.NodeProto) -> bool:
        """Whether the inference ends at a node, so that what consumers tell counts."""
        functions = ((each.domain, each.name) for each in self._model.functions)
        known = onnx.defs.has(node.op_type) if node.domain in STANDARD else (node.domain, node.op_type) in functions
        return not known

    @cached_property
    def _everything(self) -> dict[str, TensorType]:
        return self._infer_everything()

    def _infer_everything(self) -> dict[str, TensorType]:
        return self._types_in(inferred(_without_calls(self._model), self.given))

    def _types_in(self, model: onnx.ModelProto | None) -> dict[str, TensorType]:
        """The types that a model declares; equal ones are one object, so that large models keep little."""
        declared = _types(model.graph) if model is not None else {}
        read = _once_for_each(lambda each: (_is_tensor(each), tensor_type(each)))
        types = {name: read(each) for name, each in declared.items()}
        self._no_tensors |= {name for name, (is_tensor, _) in types.items() if not is_tensor}
        return {name: kind for name, (_, kind) in types.items()}

    def _part(self, tensor: str) -> onnx.ModelProto:
        """The nodes that a tensor depends on, as a model of their own."""
        part = onnx.ModelProto(ir_version=self._model.ir_version, opset_import=self._model.opset_import)
        part.functions.extend(self._model.functions)
        graph, index = self._model.graph, self._index
        node_indexes = index.ancestors(tensor)
        wanted = frozenset[str]().union(*map(index.reads, node_indexes))
        part.graph.node.extend(index.nodes[node_index] for node_index in node_indexes)
        part.graph.input.extend(value for value in graph.input if value.name in wanted)
        part.graph.initializer.extend(weight for weight in graph.initializer if weight.name in wanted)
        known = wanted | {tensor}
        part.graph.value_info.extend(value for value in (*graph.value_info, *graph.output) if value.name in known)
        return part

    def lookup(self, tensor: str) -> TensorType:
        """(element type number, shape) of a tensor; (0, None) where neither is known."""
        found = self._found.get(tensor)
        if found is None:
            found = self._look_up(tensor)
            self._found[tensor] = found
        return found

    def known(self, tensor: str) -> TensorType:
        """The same without inferring anything for it: what the model states of it, or what was inferred for others."""
        if (found := self._found.get(tensor)) is not None:
            return found
        return self.lookup(tensor) if "_everything" in vars(self) else tensor_type(self._declared.get(tensor))

    def _look_up(self, tensor: str) -> TensorType:
        declared = tensor_type(self._declared.get(tensor))
        if _is_complete(declared) and not self.given:
            return declared
        found = self._inferred(tensor)
        if declared == _UNKNOWN:
            return found  # equal ones stay one object
        return (found[0] or declared[0], _merge(declared[1], found[1]))

    def is_tensor(self, name: str) -> bool:
        """Whether it may be a tensor: neither a sequence nor a map, as far as it is known."""
        if (declared := self._declared.get(name)) is not None:
            return _is_tensor(declared)
        self._inferred(name)
        return name not in self._no_tensors

    def stops(self, tensor: str) -> int | None:
        """Index of the nearest node upstream of a tensor of whose output rank or channels are not known, though they
        are of all its inputs. None where there is none.
        """
        index = self._index
        for node_index in reversed(index.ancestors(tensor)):
            given = [name for name in sorted(index.reads(node_index)) if not index.is_constant(name)]
            if not self._is_told(index.nodes[node_index].output[0]) and all(map(self._is_told, given)):
                return node_index
        return None

    def _is_told(self, tensor: str) -> bool:
        return _tell(*self.lookup(tensor))

    def is_feature_map(self, tensor: str) -> bool:
        """Whether a tensor is known to be [N, C, H, W] of a floating-point type, with C known."""
        kind, shape = self.lookup(tensor)
        return float_dtype(kind) is not None and shape is not None and len(shape) == 4 and isinstance(shape[1], int)


def inferred(model: onnx.ModelProto, given: Shapes = MappingProxyType({})) -> onnx.ModelProto | None:
    """A copy of a model with the types of its tensors inferred, subgraphs included; None if that cannot be done.

    The nodes are those of ``model``, in its order; what shapes are computed from lies in new initializers. RequestError
    where a ``given`` shape of a tensor contradicts the model.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return _inferred_in_place(copy, given)


def _inferred_in_place(model: onnx.ModelProto, given: Shapes) -> onnx.ModelProto | None:
    """The same of a model that nobody else needs."""
    _forget_impossible_sizes(model.graph)
    _forget_endless_functions(model)
    use_stand_ins(model.graph)
    try:
        fold_shapes(model)
        model = infer(model)
        _complete(model, given)
        return model
    except RequestError:
        raise
    except Exception:  # whatever stops the inference, what the model itself states still holds
        return None


def _complete(model: onnx.ModelProto, given: Shapes) -> None:
    """Add what follows from computed values, from weights and from given shapes, where something is open."""
    graph = model.graph
    states_all = _once_for_each(is_static)
    declared = {value.name for value in (*graph.value_info, *graph.output) if states_all(value.type)}
    if given or not all(name in declared for node in graph.node for name in node.output if name):
        from .computed_shapes import complete

        complete(model, given)


def _without_calls(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without local functions: the inference loses its way in calls that hold calls."""
    try:
        return local_functions.written_out(model, "the model")
    except ModelError:  # recursive, incomplete or countless functions
        return model


def _forget_impossible_sizes(graph: onnx.GraphProto) -> None:
    """Sizes of -1 (Paddle's dynamic ones) would be taken for numbers, and -1 can come out of a convolution as 1. Two
    sizes that are "?" would be taken for equal.
    """
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            impossible = dimension.HasField("dim_value") and dimension.dim_value <= 0
            if impossible or (dimension.HasField("dim_param") and _names_nothing(text(dimension.dim_param) or "")):
                dimension.Clear()


def _names_nothing(name: str) -> bool:
    """Whether it is how an exporter spells any size at all: ``?``, ``-1``, ``None``."""
    return not any(map(str.isalpha, name)) or name.lower() in ("none", "unk", "unknown")


def _forget_endless_functions(model: onnx.ModelProto) -> None:
    """The inference follows every call; where there is no end of them, their results are not known."""
    if model.functions:
        try:
            local_functions.check(model, "the model")
        except ModelError:
            del model.functions[:]


def _tell(kind: int, shape: tuple[Dimension, ...] | None) -> bool:
    """Whether type, rank and, of a map, channels are known."""
    return bool(kind) and shape is not None and (len(shape) != 4 or isinstance(shape[1], int))


def _types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    return {value.name: value.type for value in (*graph.value_info, *graph.input, *graph.output)}


def _once_for_each(read: Callable[[onnx.TypeProto], _Read]) -> Callable[[onnx.TypeProto], _Read]:
    """A function of declared types that works out the same for equal ones once: a large model has few."""
    known: dict[bytes, _Read] = {}

    def reading(declared: onnx.TypeProto) -> _Read:
        key = declared.SerializeToString()
        if key not in known:
            known[key] = read(declared)
        return known[key]

    return reading


def _is_tensor(declared: onnx.TypeProto) -> bool:
    return declared.WhichOneof("value") in (None, "tensor_type")


def tensor_type(declared: onnx.TypeProto | None) -> TensorType:
    """(element type number, shape) that a declaration states; (0, None) where it is no tensor's."""
    if declared is None or not declared.HasField("tensor_type"):
        return _UNKNOWN
    tensor = declared.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    return tensor.elem_type, tuple(_dimension(d) for d in tensor.shape.dim)


def _is_complete(declared: TensorType) -> bool:
    """Whether a declaration says all that there is to know; the batch may be of any size."""
    kind, shape = declared
    return bool(kind) and shape is not None and all(isinstance(size, int) for size in shape[1:])


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> Dimension:
    if dimension.HasField("dim_value"):
        return dimension.dim_value if dimension.dim_value > 0 else None  # -1 is Paddle's spelling of unknown
    name = text(dimension.dim_param) or ""
    # neither a formula such as ((height - 1)//2) + 1 nor a number that the inference gave out is a name for a size
    return name if name.isidentifier() and not name.startswith("unk__") else None


def _merge(first: tuple[Dimension, ...] | None, second: tuple[Dimension, ...] | None) -> tuple[Dimension, ...] | None:
    """The more that is known of two shapes of one tensor; the declared one where they contradict each other."""
    if first is None or second is None or len(first) != len(second):
        return first if first is not None else second
    return tuple(
        a if isinstance(a, int) or b is None or (a and not isinstance(b, int)) else b
        for a, b in zip(first, second, strict=True)
    )
