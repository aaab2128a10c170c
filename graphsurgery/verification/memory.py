"""Memory: what it takes to run a graph, estimated from the sizes of its tensors before anything is run.

A block over all pairs of positions grows with the square of the map: 4 heads on 80 x 80 make a score matrix of
4 x 6400 x 6400, 655 MB in float32, and several are alive at once, in float64 on the side of PyTorch. So what a
comparison would take is added up first, and a block for which it is too much is compared on a smaller map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx

MEMORY = 2
"""GB (1e9 bytes) that verifying may take in all, unless the user says otherwise."""

_LOADED = 0.6e9
"""bytes of it that Python, PyTorch, onnxruntime and the model take before anything is compared"""
_COMPARED = 24
"""bytes for each number that is alive at once: a float64 of the reference, the noise by which its rounding is
perturbed, and the product of the two. onnxruntime's float32 take less, and are freed before (see runners.py)."""
_ROOM = 8
"""how many times less than the limit allows a smaller map is to take"""
_RUN = 6
"""bytes for each number that is alive at once in a run of the model: a float32, and what its allocator rounds up"""

Shape = Sequence[int]


class Memory:
    """A limit in GB, and what fits under it."""

    def __init__(self, limit: int = MEMORY) -> None:
        self.limit = limit

    def compares(self, numbers: int) -> bool:
        """Whether a block of which so many numbers are alive at once can be compared."""
        return numbers * _COMPARED + _LOADED <= self.limit * 1e9

    def compares_easily(self, numbers: int) -> bool:
        """The same with room to spare: where it is not the block's own size, a larger map proves no more, and takes
        longer.
        """
        return self.compares(_ROOM * numbers)

    def runs(self, numbers: int) -> bool:
        """Whether a model of which so many numbers are alive at once can be run."""
        return numbers * _RUN + _LOADED <= self.limit * 1e9

    def needed(self, numbers: int) -> str:
        """What the comparison would take, for a message."""
        return f"{(numbers * _COMPARED + _LOADED) / 1e9:.1f} GB"

    def run(self, numbers: int) -> str:
        """What the run would take, for a message."""
        return f"{(numbers * _RUN + _LOADED) / 1e9:.1f} GB"


def shapes_in(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a model when its inputs have these shapes; unknown ones are left out."""
    graph = model.graph
    concrete = onnx.ModelProto()
    concrete.CopyFrom(model)
    del concrete.graph.value_info[:]  # declared with the names of dynamic sizes
    for value in (*concrete.graph.input, *concrete.graph.output):
        tensor = value.type.tensor_type
        tensor.ClearField("shape")
        for size in inputs.get(value.name, ()):
            tensor.shape.dim.add().dim_value = size
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer} | {k: tuple(v) for k, v in inputs.items()}
    try:
        inferred = onnx.shape_inference.infer_shapes(concrete, data_prop=True).graph
    except Exception:  # it raises whatever comes up in a model that contradicts itself
        return found
    for value in (*inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(size.dim_value > 0 for size in tensor.shape.dim):
            found[value.name] = tuple(size.dim_value for size in tensor.shape.dim)
    return found


def alive_at_once(graph: onnx.GraphProto, shapes: Mapping[str, Shape]) -> int:
    """How many numbers the tensors hold that are needed at one time, at most; those of unknown shape count nothing.

    Initializers are left out. Nodes run in the order of the graph.
    """
    kept = {value.name for value in graph.output}
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    ends: dict[int, list[str]] = {}
    for name, place in last.items():
        if name not in kept:
            ends.setdefault(place, []).append(name)
    constant = {tensor.name for tensor in graph.initializer}
    alive = {value.name: math.prod(shapes.get(value.name, (0,))) for value in graph.input if value.name not in constant}
    total = most = sum(alive.values())
    for place, node in enumerate(graph.node):
        for name in filter(None, node.output):
            alive[name] = math.prod(shapes.get(name, (0,)))
            total += alive[name]
        most = max(most, total)
        for name in ends.get(place, ()):
            total -= alive.pop(name, 0)
    return most
