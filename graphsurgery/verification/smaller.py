"""A block on a smaller map than it was put at, where comparing it at its own size would take too much memory.

With fixed sizes, the nodes in the file run at one size only: Reshape has it as a constant, and position tables belong
to it. So the proof has two parts. The nodes and constants in the file are exactly those that the block's template
writes for the weights that are in the file; and what the same template writes for a smaller map agrees with the PyTorch
module. With dynamic sizes, the nodes of the file run at any size, and only what really arrives is cut down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..errors import GraphSurgeryError
from ..feature_map import Array
from ..modelfile.model import ModelFile
from ..template import weight_folding
from ..template.writer import computed_in
from ..userblocks import Trust
from ..userblocks.inserted import block_of, weights_of
from .cases import concrete_shapes
from .conditioning import UNITS
from .cutout import Cutout, constants
from .lowering import as_model, lowered
from .memory import Memory, alive_at_once, shapes_in

if TYPE_CHECKING:
    from ..blocks.block import Block
    from ..modelfile.record import Insertion
    from ..template.subgraph import Subgraph

_SMALLEST = 4
"""height or width below which nothing is learned any more"""
_UNITS_OFF = 8
"""Weights are read back from the constants that they became, and become them again: each way rounds a few times."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Comparable:
    """A block as it is compared: as it stands in the file, or on a smaller map."""

    model: ModelFile
    """has the constants of ``cutout``"""
    insertion: Insertion
    cutout: Cutout
    recorded: Insertion
    """the record in the file, with a site of that size"""
    note: str = ""
    """which size it is compared at instead of its own, and why; "" for its own"""

    @property
    def smaller(self) -> bool:
        return bool(self.note)

    @property
    def size(self) -> Size | None:
        """Height and width at which it is compared; None where they are dynamic."""
        *_, height, width = self.insertion.site.shape
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def comparable(
    model: ModelFile, insertion: Insertion, cutout: Cutout, memory: Memory, trust: Trust
) -> Comparable | str:
    """The block at the largest size at which it can be compared, or why there is none."""
    own = Comparable(model, insertion, cutout, insertion)
    numbers = max(_numbers(cutout, shape) for shape in concrete_shapes(insertion.site.shape))
    if memory.compares(numbers):
        return own
    *_, height, width = insertion.site.shape
    reason = f"at that size it would take {memory.needed(numbers)}, and the limit is {memory.limit} GB"
    if not isinstance(height, int) or not isinstance(width, int):
        return f"it was not compared, because {reason}"
    block = block_of(insertion, trust)
    weights = weights_of(insertion, model, trust)
    if not _is_what_the_template_writes(cutout, lowered(block, insertion, cutout, model.opset, weights), insertion):
        return (
            f"it cannot be compared on a smaller map than {height} x {width}, because its nodes are not those that "
            f"its template writes; {reason}"
        )
    fitting = None
    for size in _halved((height, width)):
        found = _at(block, insertion, cutout, model, weights, size)
        numbers = _numbers(found.cutout, concrete_shapes(found.insertion.site.shape)[0]) if found else 0
        if found and memory.compares(numbers):
            note = f"compared at {size[0]} x {size[1]} instead of {height} x {width}: {reason}"
            fitting = replace(found, note=note)
            if memory.compares_easily(numbers):
                break
    return fitting or f"it was not compared, because {reason}, and it cannot work on a smaller map"


def largest_size(cutout: Cutout, shape: tuple[int, ...], memory: Memory) -> Size:
    """The height and width, of those of an activation or halved, at which a block of dynamic size can be compared."""
    own = (shape[2], shape[3])
    if memory.compares(_numbers(cutout, shape)):
        return own
    sizes = list(_halved(own)) or [own]
    return next((s for s in sizes if memory.compares_easily(_numbers(cutout, (*shape[:2], *s)))), sizes[-1])


def _numbers(cutout: Cutout, shape: tuple[int, ...]) -> int:
    shapes = shapes_in(cutout.model, {cutout.input: shape, cutout.output: shape})
    return alive_at_once(cutout.model.graph, shapes)


def _halved(size: Size) -> Iterator[Size]:
    """Half of a size, half of that ..."""
    while min(size) >= 2 * _SMALLEST:
        size = (size[0] // 2, size[1] // 2)
        yield size


def _at(
    block: Block, insertion: Insertion, cutout: Cutout, model: ModelFile, weights: Mapping[str, Array], size: Size
) -> Comparable | None:
    """The block for a map of this size, with its own weights, position tables cut down; None if it cannot be there."""
    shape = (*insertion.site.shape[:2], *size)
    there = replace(insertion, site=replace(insertion.site, shape=shape))
    feature = there.feature
    try:
        block.check(feature)
        if insertion.lowering not in block.lowerings(feature, model.opset):
            return None
        wanted = block.parameters(feature)
        own = {key: weights[key][tuple(map(slice, wanted.get(key, weights[key].shape)))] for key in weights}
        subgraph = lowered(block, there, cutout, model.opset, own)
    except GraphSurgeryError:
        return None
    alone = as_model(subgraph, cutout, shape)
    small = replace(
        there,
        nodes=tuple(node.name for node in subgraph.nodes),
        initializers=tuple(tensor.name for tensor in subgraph.initializers),
        stored={key: subgraph.stored.get(key) or weight_folding.keep(values) for key, values in own.items()},
        output_tensor=subgraph.output,
        qdq=None,
    )
    return Comparable(ModelFile.load(alone), small, Cutout(alone, cutout.input, subgraph.output, cutout.dtype), there)


def _is_what_the_template_writes(cutout: Cutout, subgraph: Subgraph, insertion: Insertion) -> bool:
    """Whether the nodes in the file compute the same from the same constants: compared from the output upwards."""
    unit = UNITS[computed_in(insertion.site.dtype, insertion.precision)]
    sides = []
    for nodes, values in (
        (cutout.model.graph.node, constants(cutout.model)),
        (subgraph.nodes, {tensor.name: tensor for tensor in subgraph.initializers}),
    ):
        values |= {node.output[0]: node.attribute[0].t for node in nodes if node.op_type == "Constant"}
        producer = {name: (node, place) for node in nodes for place, name in enumerate(node.output) if name}
        sides.append((values, producer))
    (held, made), (written, expected) = sides
    pending, seen = [(cutout.output, subgraph.output)], set[tuple[str, str]]()
    while pending:
        pair = pending.pop()
        if pair in seen:
            continue
        seen.add(pair)
        a, b = pair
        if a in held or b in written:
            if a not in held or b not in written or not _same_constant(held[a], written[b], unit):
                return False
        elif a in made and b in expected:
            (node, place), (other, at) = made[a], expected[b]
            if place != at or not _same_operator(node, other):
                return False
            pending += zip(node.input, other.input, strict=True)
        elif a in made or b in expected or a != b:
            return False
    return True


def _same_operator(a: onnx.NodeProto, b: onnx.NodeProto) -> bool:
    attributes = [{each.name: each.SerializeToString(deterministic=True) for each in node.attribute} for node in (a, b)]
    same = (a.op_type, a.domain, len(a.input), len(a.output)) == (b.op_type, b.domain, len(b.input), len(b.output))
    return same and attributes[0] == attributes[1]


def _same_constant(a: onnx.TensorProto, b: onnx.TensorProto, unit: float) -> bool:
    """Equal, but for the last bits of numbers with a fraction."""
    if a.data_type != b.data_type or a.dims != b.dims:
        return False
    x, y = (onnx.numpy_helper.to_array(tensor) for tensor in (a, b))
    if x.dtype.kind in "iub":
        return bool(np.array_equal(x, y))
    x, y = x.astype(np.float64), y.astype(np.float64)
    floor = _UNITS_OFF * unit * float(np.abs(y).max(initial=0.0))
    return bool(np.allclose(x, y, rtol=_UNITS_OFF * unit, atol=floor, equal_nan=True))
