"""What weights tell of the tensors that they are applied to: a Conv's of its input, wherever that comes from.

ONNX's inference goes from inputs to outputs, and ends at the first operator that it does not know. Here a node is read
the other way round: its weights, and what is known of its outputs, tell rank and channels of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import onnx

from ..feature_map import Array
from ..modelfile import payload
from .shape_arithmetic import Size, in_part
from .shapes_by_value import Shape

_ShapeOf: TypeAlias = Callable[[str], Shape | None]
_ValuesOf: TypeAlias = Callable[[Iterable[str]], Mapping[str, Array]]


class Fact(NamedTuple):
    """What a node tells of one of its inputs."""

    tensor: str
    shape: Shape | None
    like: str
    """a tensor of the same element type; "" where none is known to be"""


class Weights:
    """What the nodes of one model tell of their inputs.

    Parameters
    ----------
    shape_of:
        The shape of a tensor as far as it is known; None for one of unknown rank.
    values_of:
        The values of those among some tensors that have one.
    """

    def __init__(self, shape_of: _ShapeOf, values_of: _ValuesOf) -> None:
        self._shape_of = shape_of
        self._values_of = values_of

    def facts(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """What a node tells of its inputs, known or not."""
        rule = _RULES.get(node.op_type)
        if rule is not None and node.input and node.output:
            yield from rule(self, node)

    def _attributes(self, node: onnx.NodeProto) -> Mapping[str, Any]:
        return {each.name: payload.attribute_value(each) for each in node.attribute}

    def _known(self, node: onnx.NodeProto, slot: int) -> list[int] | None:
        """The shape of an input where all of it is known; None elsewhere."""
        shape = self._shape_of(node.input[slot]) if slot < len(node.input) else None
        sizes = [size for size in shape or () if isinstance(size, int)]
        return sizes if shape is not None and len(sizes) == len(shape) else None

    def _output(self, node: onnx.NodeProto) -> Shape | None:
        return self._shape_of(node.output[0])

    def _rank(self, node: onnx.NodeProto) -> int | None:
        """Of the first input, for operators that keep the rank."""
        shapes = (self._shape_of(node.input[0]), self._output(node))
        return next((len(shape) for shape in shapes if shape is not None), None)

    # ------------------------------------------------------------------ weights

    def convolution(self, node: onnx.NodeProto, slot: int, typed: bool, transposed: bool) -> Iterator[Fact]:
        """Conv and its like; ``slot``: of the weight; ``typed``: whether that has the element type of the map."""
        weight = self._known(node, slot)
        if weight is not None and len(weight) > 2:
            group = self._attributes(node).get("group") or 1
            channels = weight[0] if transposed else weight[1] * group
            batch = (self._output(node) or [None])[0]
            sizes = [None] * (len(weight) - 2)
            yield Fact(node.input[0], [batch, channels, *sizes], node.input[slot] if typed else "")

    def channel_weights(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """BatchNormalization and its like: one weight for each channel."""
        weight, rank = self._known(node, 1), self._rank(node)
        if weight is not None and len(weight) == 1 and rank is not None and rank > 1:
            whole = self._output(node) or [None] * rank
            yield Fact(node.input[0], [whole[0], weight[0], *whole[2:]], node.output[0])

    def last_axes(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """LayerNormalization: one weight for each place on the last axes, or one that is stretched."""
        weight, rank = self._known(node, 1), self._rank(node)
        axis = self._attributes(node).get("axis", -1)
        if weight is not None and rank is not None and len(weight) == (-axis if axis < 0 else rank - axis):
            whole = self._output(node) or [None] * rank
            last = [
                size if size > 1 else known for size, known in zip(weight, whole[rank - len(weight) :], strict=True)
            ]
            yield Fact(node.input[0], [*whole[: rank - len(weight)], *last], node.output[0])

    def product(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """MatMul with a matrix: its rows are as many as the columns of the other."""
        weight, rank = self._known(node, 1), self._rank(node)
        if weight is not None and len(weight) == 2 and rank is not None and rank > 1:
            whole = self._output(node) or [None] * rank
            yield Fact(node.input[0], [*whole[:-1], weight[0]], node.input[1])

    def linear(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """Gemm, whose inputs are matrices."""
        weight, attributes = self._known(node, 1), self._attributes(node)
        if weight is not None and len(weight) == 2:
            width = weight[1] if attributes.get("transB") else weight[0]
            yield Fact(node.input[0], [width, None] if attributes.get("transA") else [None, width], node.input[1])

    # ------------------------------------------------------------------ outputs

    def one_type(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """Operators whose inputs and output have one element type."""
        for name in node.input:
            for like in (*node.input, *node.output):
                yield Fact(name, None, like)

    def same(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """Operators that keep the shape and the element type."""
        if (shape := self._output(node)) is not None:
            yield Fact(node.input[0], shape, node.output[0])

    def other_type(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """Operators that keep the shape alone."""
        if (shape := self._output(node)) is not None:
            yield Fact(node.input[0], shape, "")

    def pooling(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """Operators that keep the batch and the channels."""
        shape = self._output(node)
        if shape is not None and len(shape) > 2:
            yield Fact(node.input[0], [*shape[:2], *[None] * (len(shape) - 2)], node.output[0])

    def resizing(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """Resize and Upsample: an axis with the factor 1 keeps its size."""
        shape = self._output(node)
        slot = 1 if node.op_type == "Upsample" or len(node.input) == 2 else 2
        name = node.input[slot] if slot < len(node.input) else ""
        scales = self._values_of([name]).get(name) if name else None
        if shape is None:
            return
        factors = (
            scales.tolist() if scales is not None and not in_part(scales) else self._attributes(node).get("scales")
        )
        if not factors or len(factors) != len(shape) or "axes" in self._attributes(node):
            factors = [None] * len(shape)
        kept = [size if factor == 1 else None for size, factor in zip(shape, factors, strict=True)]
        yield Fact(node.input[0], kept, node.output[0])

    def joining(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """Concat: the inputs have the sizes of the output and of each other, and one has what the others leave on the
        axis.
        """
        shape, axis = self._output(node), self._attributes(node).get("axis")
        if shape is None or axis is None or not -len(shape) <= axis < len(shape):
            return
        axis %= len(shape)
        parts = [self._size(name, axis) for name in node.input]
        alike = [shape, *(each for name in node.input if (each := self._shape_of(name)) and len(each) == len(shape))]
        common = [
            next((size for size in sizes if isinstance(size, int)), sizes[0]) for sizes in zip(*alike, strict=True)
        ]
        numbers = [size for size in parts if isinstance(size, int)]
        whole = shape[axis]
        left = whole - sum(numbers) if isinstance(whole, int) and len(numbers) == len(parts) - 1 else None
        for name, part in zip(node.input, parts, strict=True):
            size: Size = part if isinstance(part, int) or left is None or left < 0 else left
            yield Fact(name, [*common[:axis], size, *common[axis + 1 :]], node.output[0])

    def splitting(self, node: onnx.NodeProto) -> Iterator[Fact]:
        """Split: the input has the sizes of the outputs, and on the axis their sum."""
        shapes = [self._shape_of(name) for name in node.output if name]
        whole = ((name, shape) for name, shape in zip(filter(None, node.output), shapes, strict=True))
        like, known = next(((name, shape) for name, shape in whole if shape is not None), ("", None))
        axis = self._attributes(node).get("axis") or 0
        if known is None or not -len(known) <= axis < len(known):
            return
        axis %= len(known)
        sizes = self._parts(node) or [shape[axis] if shape is not None else None for shape in shapes]
        numbers = [size for size in sizes if isinstance(size, int)]
        size = sum(numbers) if len(numbers) == len(sizes) == len(node.output) else None
        yield Fact(node.input[0], [*known[:axis], size, *known[axis + 1 :]], like)

    def _parts(self, node: onnx.NodeProto) -> Shape | None:
        """The sizes that a Split gives for its outputs."""
        if len(node.input) < 2 or not node.input[1]:
            given: Shape | None = self._attributes(node).get("split")
            return given
        value = self._values_of([node.input[1]]).get(node.input[1])
        return None if value is None else value.tolist()

    def _size(self, name: str, axis: int) -> Size:
        shape = self._shape_of(name)
        return shape[axis] if shape is not None and axis < len(shape) else None


_Rule: TypeAlias = Callable[[Weights, onnx.NodeProto], Iterator[Fact]]


def _convolving(slot: int, *, typed: bool = True, transposed: bool = False) -> _Rule:
    return lambda weights, node: weights.convolution(node, slot, typed, transposed)


_SAME = frozenset(
    {"Abs", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity"}
    | {"LeakyRelu", "LogSoftmax", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign"}
    | {"Sqrt", "Tanh", "ThresholdedRelu"}
)
"""operators whose output has the shape and the element type of the first input"""
_RULES: dict[str, _Rule] = {
    "Conv": _convolving(1),
    "ConvInteger": _convolving(1, typed=False),
    "ConvTranspose": _convolving(1, transposed=True),
    "DeformConv": _convolving(1),
    "QLinearConv": _convolving(3, typed=False),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), Weights.channel_weights),
    "LayerNormalization": Weights.last_axes,
    "MatMul": Weights.product,
    "Gemm": Weights.linear,
    **dict.fromkeys(_SAME, Weights.same),
    **dict.fromkeys(("Cast", "DequantizeLinear", "QuantizeLinear"), Weights.other_type),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"), Weights.pooling),
    **dict.fromkeys(("Resize", "Upsample"), Weights.resizing),
    **dict.fromkeys(("Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Sub", "Sum"), Weights.one_type),
    "Concat": Weights.joining,
    "Split": Weights.splitting,
}
"""operator -> what a node of it tells of its inputs"""
TELLING = _RULES.keys()
"""the operators that tell something of their inputs"""
