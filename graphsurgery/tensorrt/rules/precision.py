"""What overflows or vanishes in float16, where a node runs in it."""

from __future__ import annotations

from functools import partial

import numpy as np
from onnx import TensorProto

from ..options import Options
from ..rule import WARNING, node_rule
from ..view import Origin, Visit

LARGEST = 65504.0
_SMALLEST_NORMAL = 2.0**-14
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


_float16_rule = partial(node_rule, source="float16", severity=WARNING)


def _in_float16(visit: Visit, options: Options, slot: int = 0) -> bool:
    """Whether a node runs in float16: by the file, or because the builder may choose it."""
    if visit.own_origin is not Origin.DATA:
        return False
    kind = visit.type(visit.input(slot))
    may = options.precision != "fp32" and not options.version.strongly_typed
    return bool(kind == TensorProto.FLOAT16 or (may and kind == TensorProto.FLOAT))


@_float16_rule(*_SUMS, instead="a mean in its place, a Cast to float32 around it, or --layerPrecisions")
def float16_sum(visit: Visit, options: Options) -> str | None:
    if not _in_float16(visit, options):
        return None
    square = visit.operator in ("ReduceL2", "ReduceSumSquare") or _is_square(visit)
    count = _summed(visit)
    if not square and (count is None or count < 1024):
        return None
    what = "squares" if square else f"{count} numbers"
    return f"it sums {what} in float16, whose largest number is 65504"


@_float16_rule("Pow", instead="a Cast to float32 around it, or a division by the largest magnitude before it")
def float16_square(visit: Visit, options: Options) -> str | None:
    exponent = visit.value(1)
    if exponent is None or not _in_float16(visit, options) or float(np.max(exponent)) < 2:
        return None
    return f"it raises to the power of {float(np.max(exponent)):g} in float16: 256 squared is infinite there"


@_float16_rule(instead="numbers that float16 can hold")
def float16_constant(visit: Visit, options: Options) -> str | None:
    for slot, name in enumerate(visit.node.input):
        if (
            visit.type(name) != TensorProto.FLOAT
            or name not in visit.scope.values
            or not _in_float16(visit, options, slot)
        ):
            continue
        value = visit.value(slot)
        if value is not None and value.size and np.isfinite(value).all() and float(np.abs(value).max()) > LARGEST:
            return f"the constant {name} reaches {float(np.abs(value).max()):g}, more than float16 can hold"
    return None


@_float16_rule("Add", "Max", instead="an epsilon of 1e-4 or more, or a Cast to float32 around it")
def float16_epsilon(visit: Visit, options: Options) -> str | None:
    for slot in (0, 1):
        value = visit.value(slot)
        if value is None or value.size != 1 or not _in_float16(visit, options, slot):
            continue
        size = abs(float(value.ravel()[0]))
        if 0 < size < _SMALLEST_NORMAL:
            return f"its epsilon {size:g} is below the smallest normal number of float16, 6.1e-5"
    return None


RULES = (float16_sum, float16_square, float16_constant, float16_epsilon)


def _is_square(visit: Visit) -> bool:
    """Whether the node's input is a tensor times itself."""
    position = visit.view.index.producer.get(visit.input(0)) if visit.within is None else None
    if position is None:
        return False
    node = visit.view.index.nodes[position]
    return node.op_type == "Mul" and len(set(node.input)) == 1


def _summed(visit: Visit) -> int | None:
    """How many numbers each element of a reduction's output is made of."""
    before, after = visit.shape(visit.input(0)), visit.shape(visit.output)
    if before is None or after is None or not all(isinstance(d, int) for d in (*before, *after)):
        return None
    sizes = [int(np.prod([d for d in shape if isinstance(d, int)])) for shape in (before, after)]
    return sizes[0] // max(sizes[1], 1)
