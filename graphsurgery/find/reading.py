"""Reading: what the nodes of a part compute with, in the order of the nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod

import numpy as np
import onnx

from ..errors import ModelError
from ..feature_map import Array
from ..graph.constants import Constants
from ..graph.index import GraphIndex, upstream
from ..graph.part import Part
from ..graph.shapes import ShapeTable
from ..modelfile import payload
from .uses import Kind, Role, Use, as_it_is, is_mask, unmasked

_NORM = {1: Role.SCALE, 2: Role.SHIFT}
_PLACES: dict[str, dict[int, Role]] = {
    "Conv": {1: Role.MATRIX, 2: Role.SHIFT},
    "ConvTranspose": {1: Role.MATRIX, 2: Role.SHIFT},
    "Gemm": {0: Role.MATRIX, 1: Role.MATRIX, 2: Role.SHIFT},
    "MatMul": {0: Role.MATRIX, 1: Role.MATRIX},
    "BatchNormalization": {1: Role.SCALE, 2: Role.SHIFT, 3: Role.MEAN, 4: Role.VARIANCE},
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "InstanceNormalization"), _NORM),
    "Mul": dict.fromkeys((0, 1), Role.SCALE),
    "Div": dict.fromkeys((0, 1), Role.SCALE),
    "PRelu": {1: Role.SCALE},
    "Add": dict.fromkeys((0, 1), Role.SHIFT),
    "Sub": dict.fromkeys((0, 1), Role.SHIFT),
    "Attention": {3: Role.SHIFT},
    "BiasGelu": {1: Role.SHIFT},
    "SkipLayerNormalization": {4: Role.SHIFT, 2: Role.SCALE, 3: Role.SHIFT},
}
"""operator -> input -> what a constant is there, in the order in which it is used"""
_PLACES |= {f"Fused{operator}": _PLACES[operator] for operator in ("Conv", "Gemm", "MatMul")}

_SMALL = 1 << 16
"""elements up to which weights are compared"""
_FEW = 4
"""columns of a narrow table"""
_PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum", "FusedMatMul"})
_WITH_TURNS = frozenset({"Gemm", "FusedGemm", "FusedMatMul"})
"""products with an attribute that says whether a matrix is to be transposed"""
_WHOLE = frozenset({"Attention", "MultiHeadAttention"})
_KINDS: dict[str, tuple[Kind, ...]] = {
    "Softmax": (Kind.SOFTMAX,),
    "LogSoftmax": (Kind.SOFTMAX,),
    **dict.fromkeys(_WHOLE, (Kind.SOFTMAX, Kind.PRODUCT)),
    **dict.fromkeys(("ReduceMax", "GlobalMaxPool", "MaxPool", "TopK", "Max"), (Kind.MAXIMUM,)),
    **dict.fromkeys(("Sqrt", "LayerNormalization", "InstanceNormalization", "GroupNormalization"), (Kind.ROOT,)),
    "SkipLayerNormalization": (Kind.ROOT,),
    **dict.fromkeys(("ReduceL2", "LpNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), (Kind.ROOT,)),
    "GridSample": (Kind.SAMPLING,),
}
"""operator -> what it does"""
_CERTAIN = frozenset({Kind.SOFTMAX, Kind.PRODUCT, Kind.SAMPLING, Kind.MASK})
"""what both of a part and a module do, or neither"""


@dataclass(frozen=True)
class Reading:
    """What can be said of a part without running it."""

    part: Part
    index: GraphIndex
    shapes: ShapeTable
    constants: Constants
    instead: Sequence[onnx.NodeProto] | None = None
    """its nodes with other attributes, where that is to be read"""

    @cached_property
    def operators(self) -> list[str]:
        """Of its nodes, in order."""
        return [self.index.operators[node_index] for node_index in self.part.nodes]

    @cached_property
    def uses(self) -> list[Use]:
        """Where it computes with constants of numbers with a fraction."""
        return [use for node_index in self.part.nodes for use in self._of_node(node_index)]

    @cached_property
    def uses_by_branch(self) -> list[Use]:
        """The same, those of each branch together: a tool that sorts the nodes of a file mixes them."""
        return [use for node_index in self._by_branch() for use in self._of_node(node_index)]

    @cached_property
    def uses_by_column(self) -> list[Use]:
        """The same, with the columns of a narrow table that something is multiplied by as a use each: one module
        multiplies several maps and adds them, another joins them first.
        """
        return [each for use in self.uses for each in _columns(use)]

    def _by_branch(self) -> list[int]:
        """The nodes, each behind all that its first input needs, then its second."""
        given = {name: each for each in self.part.nodes for name in self.index.named_outputs[each]}
        return list(upstream([self.part.output], given, lambda each: reversed(self.index.inputs_of[each])))

    @cached_property
    def _upstream(self) -> dict[int, tuple[int, int]]:
        """Of each node, its place among them and the places, a bit each, of those that it depends on."""
        found: dict[int, tuple[int, int]] = {}
        for place, node_index in enumerate(self.part.nodes):
            upstream = 0
            for name in self.index.inputs_of[node_index]:
                before, further = found.get(self.index.producer.get(name, -1), (None, 0))
                upstream |= further if before is None else further | 1 << before
            found[node_index] = place, upstream
        return found

    def _of_node(self, node_index: int) -> Iterator[Use]:
        node = self.index.nodes[node_index]
        operator = self.index.operators[node_index]
        roles = _PLACES.get(operator, {})
        if operator == "InstanceNormalization" and self._is_plain(node):
            return
        for place in roles or range(len(node.input)):
            name = node.input[place] if place < len(node.input) else ""
            if not name or not self.constants.has(name) or (shape := self.constants.shape(name)) is None:
                continue
            if not self._is_float(name):
                continue
            role = roles.get(place, Role.OTHER)
            if role is Role.MATRIX and len(shape) == 2 and prod(shape) <= _SMALL and _averages(self._value(name)):
                continue
            read = partial(self._value, name)
            if role is Role.SHIFT and len(shape) > 3:
                shape, read = (table := unmasked(read())).shape, partial(as_it_is, table)
            turned = role is Role.MATRIX and _is_turned(node, place, operator)
            number, upstream = self._upstream[node_index]
            yield Use(role, shape, read, name, turned, operation=number, upstream=upstream)

    def _is_plain(self, node: onnx.NodeProto) -> bool:
        """Whether a norm has the scale 1 and the shift 0: what GroupNorms are made of, whose own come behind it."""
        values = [self.constants.value(name) for name in node.input[1:3] if self.constants.has(name)]
        return len(values) == 2 and all(
            value is not None and bool((value == number).all()) for value, number in zip(values, (1, 0), strict=True)
        )

    def _is_float(self, name: str) -> bool:
        kind = self._kinds.get(name)
        if kind is None:
            value = self.constants.value(name)
            return value is not None and value.dtype.kind not in "iub"
        return kind in (1, 10, 11, 16)

    @cached_property
    def _kinds(self) -> dict[str, int]:
        """Element type of each initializer."""
        wanted = {name for node in self.part.nodes for name in self.index.nodes[node].input}
        graph = self.index.model.structure.graph
        found = {}
        for name in wanted:
            if (place := self.index.initializers.get(name)) is not None:
                found[name] = graph.initializer[place].data_type
        return found

    def _value(self, name: str) -> Array:
        value = self.constants.value(name)
        if value is None:
            raise ModelError(f"the constant {name!r} cannot be read")
        return value

    @cached_property
    def matrices(self) -> tuple[int, ...]:
        """The sizes of its weights of two axes or more, each weight once."""
        each = {use.name: use for use in self.uses if use.role is Role.MATRIX and len(use.squeezed) > 1}
        shapes = Counter(use.shape for use in each.values())
        found = {use.name if shapes[use.shape] == 1 else self._content(use): use.size for use in each.values()}
        return tuple(sorted(found.values()))

    def _content(self, use: Use) -> object:
        """What two weights are alike in that are one: an exporter that folds a BatchNorm into a convolution that is
        called twice makes two of it.
        """
        return (use.shape, use.read().tobytes()) if use.size <= _SMALL else use.name

    def may_do_the_same(self, module: set[Kind]) -> bool:
        """Whether it can be a module by what they do: exporters write a maximum or a root for other things, too; and a
        mean weighted by a softmax is a product of matrices in one form of a block, and a sum in another.
        """
        part, certain = self.kinds, _CERTAIN
        if self._products <= self.operators.count("Softmax"):
            certain = certain - {Kind.PRODUCT}
        return module <= part and part & certain == module & certain

    @cached_property
    def kinds(self) -> set[Kind]:
        """What it does beyond adding and multiplying."""
        found = {kind for operator in self.operators for kind in _KINDS.get(operator, ())}
        if self._products:
            found.add(Kind.PRODUCT)
        for node, operator in zip(self.nodes, self.operators, strict=True):
            if operator == "Pow" and any(map(self._is_half, node.input[1:])):
                found.add(Kind.ROOT)
            if operator == "Add" and any(map(self._masks, node.input)):
                found.add(Kind.MASK)
        return found

    def _masks(self, name: str) -> bool:
        """Whether a constant is a mask, or a table with one for each window."""
        shape = self.constants.shape(name) if self.constants.has(name) else None
        if shape is None or len(shape) < 4 or not self._is_float(name):
            return False
        values = self._value(name)
        return is_mask(values) or unmasked(values) is not values

    @cached_property
    def _products(self) -> int:
        """How many products of two matrices it has that both depend on the input."""
        return sum(
            operator in _PRODUCTS and sum(map(self.index.is_activation, dict.fromkeys(node.input))) > 1
            for node, operator in zip(self.nodes, self.operators, strict=True)
        )

    def _is_half(self, name: str) -> bool:
        value = self.constants.value(name) if self.constants.has(name) else None
        return value is not None and value.size == 1 and abs(float(value.ravel()[0])) == 0.5

    @cached_property
    def tables(self) -> int:
        """How many constants of two axes or more are no weights: tables that are added or multiplied."""
        return len({use.name for use in self.uses if use.role is not Role.MATRIX and len(use.squeezed) > 1})

    @cached_property
    def vectors(self) -> int:
        """How many numbers are in its constants that are no weights, single numbers left out."""
        return sum({use.name: use.size for use in self.uses if use.role is not Role.MATRIX and use.size > 1}.values())

    @cached_property
    def sides(self) -> set[int]:
        """The sizes of the axes of its constants."""
        return {size for use in self.uses for size in use.shape}

    @cached_property
    def widths(self) -> set[int]:
        """How many channels its weights have."""
        return {size for use in self.uses if use.role is Role.MATRIX for size in use.shape[:2]}

    @cached_property
    def kernels(self) -> set[int]:
        """The sides of its kernels."""
        return {size for use in self.uses if use.role is Role.MATRIX for size in use.shape[2:]}

    @cached_property
    def norms(self) -> int:
        """How many nodes are BatchNorms."""
        return self.operators.count("BatchNormalization")

    @cached_property
    def scalars(self) -> list[float]:
        """The single numbers that it computes with, and the attributes that are such."""
        found = dict[float, None]()
        for use in self.uses:
            if use.size == 1:
                found[_short(float(use.values().ravel()[0]))] = None
        for node in self.nodes:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.FLOAT:
                    found[_short(attribute.f)] = None
        return list(found)

    @cached_property
    def integers(self) -> set[int]:
        """The whole numbers in it: sizes of weights, attributes, targets of reshapes."""
        found = {size for use in self.uses for size in use.shape}
        for node in self.nodes:
            for attribute in node.attribute:
                value = payload.attribute_value(attribute)
                if isinstance(value, int):
                    found.add(value)
                elif isinstance(value, list) and all(isinstance(each, int) for each in value):
                    found.update(value)
        found |= self.constants.integers(
            [name for node in self.nodes for name in node.input if self.constants.has(name)]
        )
        return found

    @cached_property
    def softmaxes(self) -> list[tuple[int, int, int]]:
        """(matrices, rows, length of a row) of each softmax, for one image: there is a matrix for each head, or for
        each head of each window. Nothing where one of these is not known, or a softmax is not over the last axis.
        """
        found = list[tuple[int, int, int]]()
        for node, operator in zip(self.nodes, self.operators, strict=True):
            if operator == "Softmax":
                shape = self.shapes.lookup(node.input[0])[1] or ()
                sizes = [size for size in shape if isinstance(size, int)]
                axis = next((each.i for each in node.attribute if each.name == "axis"), -1)
                if len(sizes) < max(len(shape), 2) or axis not in (-1, len(sizes) - 1):
                    return []
                found.append((prod(sizes[:-2]) // (self.part.feature.batch or 1), sizes[-2], sizes[-1]))
            elif operator in _WHOLE:
                return []
        return found

    @cached_property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        return self.instead or [self.index.nodes[node_index] for node_index in self.part.nodes]

    @cached_property
    def likeness(self) -> tuple[object, ...]:
        """What is equal for two parts that differ in their weights alone."""
        numbers: dict[str, object] = {}
        rows: list[object] = []
        for node, operator in zip(self.nodes, self.operators, strict=True):
            for name in node.input:
                if name and name not in numbers:
                    numbers[name] = self.constants.shape(name) if self.constants.has(name) else -1
            attributes = tuple(sorted(each.SerializeToString(deterministic=True) for each in node.attribute))
            rows.append((operator, attributes, tuple(numbers.get(name, "") for name in node.input)))
            for name in node.output:
                numbers[name] = len(numbers)
        return (tuple(rows), self.part.feature.channels, self.part.feature.height, self.part.feature.width)


def _averages(matrix: Array) -> bool:
    """Whether a matrix only picks or averages: what pools, or enlarges, and was never learned."""
    if (matrix < 0).any():
        return False
    return any(bool(np.allclose(matrix.sum(axis=axis, dtype=np.float64), 1, rtol=0, atol=1e-6)) for axis in (0, 1))


def _columns(use: Use) -> list[Use]:
    if use.role is not Role.SCALE or len(use.squeezed) < 2 or use.shape[-1] > _FEW:
        return [use]
    return [
        replace(use, shape=use.shape[:-1], read=partial(_column, use.read, n), name=f"{use.name}[{n}]")
        for n in range(use.shape[-1])
    ]


def _column(read: Callable[[], Array], number: int) -> Array:
    return read()[..., number]


def _short(number: float) -> float:
    """What was meant by a number that is kept in float32 or float16."""
    return float(f"{np.float32(number):.4g}") if number else 0.0


def _is_turned(node: onnx.NodeProto, place: int, operator: str) -> bool:
    """Whether a matrix is [in, out]."""
    if operator in _WITH_TURNS:
        turned = any(each.name == ("transB" if place else "transA") and each.i for each in node.attribute)
        return not turned if place else turned
    return operator == "MatMul" and place == 1
