"""What exporters compute sizes with: the operators, on sizes that are known, named or unknown.

A value is an array. Where all of it is known it has the element type of the tensor. Else it is an array of Python
objects: a whole number, the name of a symbolic size (``batch``), or None for what is not known. Only values of whole
numbers and of truth are known in part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx

from ..feature_map import Array
from ..modelfile import limits, payload
from ..modelfile.operators import STANDARD
from .output_sizes import most_elements

Size: TypeAlias = int | str | None
_Attributes: TypeAlias = Mapping[str, Any]
_Inputs: TypeAlias = Sequence[Array | None]

_INT64 = range(-(2**63), 2**63)


def compute(
    node: onnx.NodeProto, values: Mapping[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]
) -> Array | None:
    """The output of a node for the values of its inputs; None for other operators, and for what has no value."""
    operator = OPERATORS.get(node.op_type)
    if operator is None or node.domain not in STANDARD or len(node.output) != 1:
        return None
    if not most_elements(node, values, opsets) <= limits.SHAPE_ELEMENTS:
        return None
    attributes = {attribute.name: payload.attribute_value(attribute) for attribute in node.attribute}
    try:
        with np.errstate(all="ignore"):
            found = operator([values[name] if name else None for name in node.input], attributes)
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError):  # of a node that no runtime can run either
        return None
    return _known(np.asarray(found, dtype=object)) if any(map(in_part, values.values())) else np.asarray(found)


def sizes(shape: Iterable[Size]) -> Array:
    """The value that a Shape node gives for a shape."""
    return _known(np.array(list(shape), dtype=object))


def in_part(value: Array) -> bool:
    """Whether some of a value is not a number."""
    return value.dtype == object


def _known(value: Array) -> Array:
    """A value as an array of numbers, where all of it is known."""
    elements = value.ravel().tolist()
    if elements and all(isinstance(element, bool) for element in elements):
        return value.astype(bool)
    if all(isinstance(element, int) for element in elements):
        return value.astype(np.int64)
    return value


# ---------------------------------------------------------------------- element by element


def _elementwise(numbers: Callable[..., Any], one: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """An operator that ``numbers`` computes for arrays of numbers, and ``one`` for elements known in part."""

    def operator(inputs: _Inputs, _: _Attributes) -> Any:
        given = [each for each in inputs if each is not None]
        if not any(map(in_part, given)):
            return numbers(*given)
        if one is None:
            raise ValueError
        return np.frompyfunc(_in_range(one), len(given), 1)(*given)

    return operator


def _in_range(one: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*elements: Any) -> Any:
        found = one(*(element.item() if isinstance(element, np.generic) else element for element in elements))
        return None if isinstance(found, int) and found not in _INT64 else found

    return checked


def _with_neutral(numbers: Callable[[int, int], int], neutral: int, either: bool) -> Callable[[Size, Size], Size]:
    """An operator on two sizes that leaves the first as it is where the second is neutral, and perhaps vice versa."""

    def one(a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return numbers(a, b)
        if b == neutral:
            return a
        return b if either and a == neutral else None

    return one


def _quotient(a: Array, b: Array) -> Array:
    """Division as ONNX has it: of whole numbers, towards zero."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b, a.dtype)
    if not np.all(b):
        raise ZeroDivisionError
    return np.asarray(np.where((a < 0) != (b < 0), -(abs(a) // abs(b)), abs(a) // abs(b)), a.dtype)


def _quotient_of_two(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _equal(a: Size, b: Size) -> bool | None:
    """Whether two sizes are equal; None where that is not known. No size is negative."""
    if a is None or b is None:
        return None
    if isinstance(a, str) != isinstance(b, str):
        number = b if isinstance(a, str) else a
        return False if isinstance(number, int) and number < 0 else None
    return True if a == b else None if isinstance(a, str) else False


def _where(condition: bool | None, a: Size, b: Size) -> Size:
    if condition is None:
        return a if a == b else None
    return a if condition else b


def _mod(inputs: _Inputs, attributes: _Attributes) -> Any:
    a, b = inputs
    if in_part(a) or in_part(b) or (a.dtype.kind in "iu" and not np.all(b)):  # type: ignore[arg-type, union-attr]
        raise ValueError
    return np.fmod(a, b) if attributes.get("fmod") else np.mod(a, b)  # type: ignore[arg-type]


def _extreme(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def numbers(*given: Array) -> Array:
        found = given[0]
        for each in given[1:]:
            found = function(found, each)
        return found

    return numbers


def _of_its_type(function: Callable[..., Array]) -> Callable[..., Array]:
    """Results in the type of the first operand, as ONNX wants it."""
    return lambda first, *more: np.asarray(function(first, *more)).astype(first.dtype)


# ---------------------------------------------------------------------- in other places


def _axes(inputs: _Inputs, attributes: _Attributes) -> list[int] | None:
    """Axes: an input from some opset on, an attribute before."""
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(axis) for axis in inputs[1].ravel()]
    return attributes.get("axes")


def _first(inputs: _Inputs) -> Array:
    if inputs[0] is None:
        raise ValueError
    return inputs[0]


def _cast(inputs: _Inputs, attributes: _Attributes) -> Array:
    value, kind = _first(inputs), onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    if not in_part(value):
        return value.astype(kind)
    if kind != np.int64:  # sizes in other types can overflow, or lose their last digits
        raise ValueError
    return value


def _concat(inputs: _Inputs, attributes: _Attributes) -> Array:
    given = [each for each in inputs if each is not None]
    return np.concatenate(given, attributes["axis"])


def _constant_of_shape(inputs: _Inputs, attributes: _Attributes) -> Array:
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else payload.array(value)
    return np.full(tuple(_first(inputs).tolist()), fill.ravel()[0], fill.dtype)


def _gather(inputs: _Inputs, attributes: _Attributes) -> Array:
    value, chosen = inputs
    if value is None or chosen is None or in_part(chosen):
        raise ValueError
    return np.take(value, chosen, attributes.get("axis", 0))


def _reshape(inputs: _Inputs, attributes: _Attributes) -> Array:
    value, target = inputs
    if value is None or target is None or in_part(target):
        raise ValueError
    copied = not attributes.get("allowzero")
    wanted = [value.shape[i] if size == 0 and copied else size for i, size in enumerate(target.tolist())]
    return value.reshape(wanted)


def _slice(inputs: _Inputs, attributes: _Attributes) -> Array:
    value = _first(inputs)
    if any(each is not None and in_part(each) for each in inputs[1:]):
        raise ValueError
    if len(inputs) > 1:
        given = [None if each is None else each.tolist() for each in inputs[1:]]
        starts, ends, axes, steps = [*given, None, None, None][:4]
    else:
        starts, ends, axes, steps = (attributes.get(name) for name in ("starts", "ends", "axes", "steps"))
    if starts is None or ends is None:
        raise ValueError
    chosen = [slice(None)] * value.ndim
    for i, axis in enumerate(axes or range(len(starts))):
        chosen[axis] = sliced(starts[i], ends[i], steps[i] if steps else 1, value.shape[axis])
    return value[tuple(chosen)]


def sliced(start: int, end: int, step: int, size: int) -> slice:
    """The elements that a Slice takes of an axis of ``size``: it ends in front of the first where ``end`` says so."""
    first, last, stride = slice(start, end, step).indices(size)
    return slice(first, None if last < 0 else last, stride)


def _squeeze(inputs: _Inputs, attributes: _Attributes) -> Array:
    axes = _axes(inputs, attributes)
    return np.squeeze(_first(inputs), None if axes is None else tuple(axes))


def _unsqueeze(inputs: _Inputs, attributes: _Attributes) -> Array:
    axes = _axes(inputs, attributes)
    if axes is None:
        raise ValueError
    return np.expand_dims(_first(inputs), tuple(axes))


def _reduce(function: Callable[..., Any]) -> Callable[[_Inputs, _Attributes], Array]:
    def operator(inputs: _Inputs, attributes: _Attributes) -> Array:
        value, axes = _first(inputs), _axes(inputs, attributes)
        if in_part(value):
            raise ValueError
        if not axes and attributes.get("noop_with_empty_axes"):
            return value
        found = function(value, axis=tuple(axes) if axes else None, keepdims=bool(attributes.get("keepdims", 1)))
        return np.asarray(found, value.dtype)

    return operator


OPERATORS: dict[str, Callable[[_Inputs, _Attributes], Any]] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add, _with_neutral(lambda a, b: a + b, 0, True)),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_quotient, _with_neutral(_quotient_of_two, 1, False)),
    "Equal": _elementwise(np.equal, _equal),
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": lambda inputs, _: _first(inputs),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Max": _elementwise(_extreme(np.maximum)),
    "Min": _elementwise(_extreme(np.minimum)),
    "Mod": _mod,
    "Mul": _elementwise(np.multiply, _with_neutral(lambda a, b: a * b, 1, True)),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": _elementwise(_of_its_type(np.power)),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Round": _elementwise(np.round),
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract, _with_neutral(lambda a, b: a - b, 0, False)),
    "Transpose": lambda inputs, attributes: np.transpose(_first(inputs), attributes.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where, _where),
}
"""operator -> its output for the values of its inputs (None for one that is left out) and its attributes"""
