"""Shapes of outputs that depend on values of which a part is known: a batch that has only a name, beside sizes that are
numbers.

ONNX's inference takes such a value for unknown as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

from ..feature_map import Array
from .shape_arithmetic import Size

Shape: TypeAlias = list[Size]
_Values: TypeAlias = Sequence[Array | None]


def shape(op_type: str, data: Shape | None, values: _Values, attributes: Mapping[str, Any]) -> Shape | None:
    """The shape of the output of a node; None where nothing is known of it.

    Parameters
    ----------
    data:
        Shape of the first input.
    values:
        Of all inputs, the first included; None for one that has none.
    """
    function = _FUNCTIONS.get(op_type)
    return None if function is None else function(data, values, attributes)


def _listed(values: _Values, slot: int) -> Shape | None:
    """The elements of a vector among the inputs; None where there is none."""
    value = values[slot] if slot < len(values) else None
    return value.tolist() if value is not None and value.ndim == 1 else None


def _reshape(data: Shape | None, values: _Values, attributes: Mapping[str, Any]) -> Shape | None:
    target = _listed(values, 1)
    if target is None:
        return None
    found: Shape = []
    for i, size in enumerate(target):
        if size == 0 and not attributes.get("allowzero"):
            found.append(data[i] if data and i < len(data) else None)
        else:
            found.append(None if size == -1 else size)
    if data is not None and found.count(None) == 1:
        found[found.index(None)] = _quotient(data, [size for size in found if size is not None])
    return found


def _quotient(whole: Sequence[Size], parts: Sequence[Size]) -> Size:
    """What a product of sizes, divided by other sizes, leaves: a number, a name, or None."""
    if None in whole:
        return None
    names = Counter(size for size in whole if isinstance(size, str))
    divisors = Counter(size for size in parts if isinstance(size, str))
    numbers = prod(size for size in whole if isinstance(size, int))
    divisor = prod(size for size in parts if isinstance(size, int))
    if divisors - names or divisor == 0 or numbers % divisor:
        return None
    left = list((names - divisors).elements())
    if not left:
        return numbers // divisor
    return left[0] if len(left) == 1 and numbers == divisor else None


def _expand(data: Shape | None, values: _Values, _: Mapping[str, Any]) -> Shape | None:
    target = _listed(values, 1)
    if target is None or data is None:
        return None
    length = max(len(target), len(data))
    ones: Shape = [1]
    pairs = zip(ones * (length - len(data)) + data, ones * (length - len(target)) + target, strict=True)
    return [_stretched(a, b) for a, b in pairs]


def _stretched(a: Size, b: Size) -> Size:
    """The size that two are broadcast to."""
    if a == 1 or b == 1:
        return b if a == 1 else a
    numbers = [size for size in (a, b) if isinstance(size, int)]
    return a if a == b else numbers[0] if numbers else None


def _slice(data: Shape | None, values: _Values, _: Mapping[str, Any]) -> Shape | None:
    if data is None:
        return None
    starts, ends = _listed(values, 1), _listed(values, 2)
    known = len(values) < 4 or values[3] is not None
    axes = (_listed(values, 3) if len(values) > 3 else None) or (range(len(starts)) if starts and known else None)
    if axes is None or not all(isinstance(axis, int) and -len(data) <= axis < len(data) for axis in axes):
        return [None] * len(data)
    steps = _listed(values, 4) if len(values) > 4 else [1] * len(axes)
    found = list(data)
    for i, axis in enumerate(axes):
        assert isinstance(axis, int)
        limits = [each[i] if each and i < len(each) else None for each in (starts, ends, steps)]
        found[axis] = _taken(data[axis], *limits)
    return found


def _taken(size: Size, start: Size, end: Size, step: Size) -> Size:
    """How much of an axis a Slice takes."""
    numbers = [each for each in (start, end, step) if isinstance(each, int)]
    if isinstance(size, int) and len(numbers) == 3 and step:
        return len(range(*slice(*numbers).indices(size)))
    whole = start == 0 and step == 1 and (end == size or (isinstance(end, int) and end >= 2**31 - 1))
    return size if whole else None


def _constant_of_shape(_: Shape | None, values: _Values, __: Mapping[str, Any]) -> Shape | None:
    return _listed(values, 0)


def _resize(data: Shape | None, values: _Values, attributes: Mapping[str, Any]) -> Shape | None:
    wanted = _listed(values, 3)
    of_all_axes = data is not None and wanted is not None and len(wanted) == len(data)
    stretched = attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
    return wanted if of_all_axes and stretched and "axes" not in attributes else None


_FUNCTIONS: dict[str, Callable[[Shape | None, _Values, Mapping[str, Any]], Shape | None]] = {
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
}
