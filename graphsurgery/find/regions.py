"""Regions: the parts of a graph that one feature map enters and one of the same shape leaves.

From each map, the nodes that it depends on are taken one after the other, the last first. Whenever all that is still
missing is one map of the same shape, what was taken is a region. It ends where a tensor inside is read outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush
from math import prod
from typing import NamedTuple

from ..feature_map import Dimension, FeatureMap, float_dtype
from ..graph.constants import Constants
from ..graph.index import GraphIndex
from ..graph.part import Part
from ..graph.shapes import ShapeTable

_OUTSIDE = -1
LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "FusedConv", "FusedGemm", "FusedMatMul"})
_MOST_WEIGHTS = 30
"""in a region: the cascaded group attention has 15 with all that is around it"""
MOST_NODES = 420
"""in a region: a window attention with all of its shape arithmetic has 300"""
_WITHOUT = 70
"""nodes after which a region without attention in it is given up"""
_POINTWISE = frozenset(
    {"Abs", "Cast", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu"}
    | {"Log", "Mish", "Neg", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt"}
    | {"Swish", "Tanh", "ThresholdedRelu", "Add", "Sub", "Mul", "Div", "Min", "Max", "Where", "Greater", "Less"}
    | {"QuantizeLinear", "DequantizeLinear", "QuickGelu", "FastGelu"}
)
_PRODUCTS = frozenset({"Mul", "MatMul", "Einsum", "Gemm", "Div", "FusedMatMul"})
_SUMS = frozenset({"Add", "Sub"})
_WHOLE = frozenset({"Attention", "MultiHeadAttention", "PackedAttention"})


class _Links(NamedTuple):
    """What a node has to do with others."""

    outputs: Sequence[str]
    readers: frozenset[int]
    """of its outputs; _OUTSIDE among them for an output of the model"""
    reads: Sequence[str]
    """that are no constants"""
    producers: Sequence[int]
    weights: int
    """constants of two axes or more"""


@dataclass(frozen=True)
class Region:
    """A part, and what makes it one to look at."""

    part: Part
    evidence: frozenset[int]
    """the nodes in it that bring two things together that both depend on the input"""


class Regions:
    """Those of one graph."""

    def __init__(self, index: GraphIndex, shapes: ShapeTable, constants: Constants) -> None:
        self.index, self.shapes, self.constants = index, shapes, constants

    @cached_property
    def order(self) -> list[int]:
        """The nodes that depend on the inputs, each after those that it reads: in the order of the file where that is
        one, since exporters keep that of the module.
        """
        index = self.index
        if all(
            index.producer.get(name, -1) < node_index for node_index in index.active for name in self.read(node_index)
        ):
            return sorted(index.active)
        found = dict[int, None]()
        for output in self.index.outputs:
            found.update(dict.fromkeys(self.index.ancestors(output)))
        return [node_index for node_index in found if node_index in self.index.active]

    @cached_property
    def rank(self) -> dict[int, int]:
        """Of each of these, its place among them."""
        return {node_index: rank for rank, node_index in enumerate(self.order)}

    def read(self, node_index: int) -> list[str]:
        """What a node reads that is no constant, each once."""
        index = self.index
        return [name for name in dict.fromkeys(index.nodes[node_index].input) if name and index.is_activation(name)]

    @cached_property
    def activations(self) -> set[int]:
        """The products that are functions of one number each: SiLU, GELU, a hard swish written out."""
        found = set[int]()
        for node_index in self.order:
            pointwise = self.index.operators[node_index] in _POINTWISE and len(self.read(node_index)) > 1
            if pointwise and self._is_activation(node_index):
                found.add(node_index)
        return found

    def _is_activation(self, node_index: int) -> bool:
        """Whether all that a node brings together is one tensor and what is computed of it number by number."""
        pending = [(-self.rank[node_index], node_index)]
        taken, missing = {node_index}, set[str]()
        while pending and len(taken) <= 12:
            _, current = heappop(pending)
            if self.index.operators[current] not in _POINTWISE or not self._with_scalars(current):
                return False
            missing -= set(self.index.nodes[current].output)
            missing |= set(self.read(current))
            if len(missing) == 1:
                return True
            for name in self.read(current):
                producer = self.index.producer.get(name)
                if producer is None:
                    return False
                if producer not in taken:
                    taken.add(producer)
                    heappush(pending, (-self.rank[producer], producer))
        return False

    def _with_scalars(self, node_index: int) -> bool:
        """Whether the constants that a node reads are single numbers."""
        shapes = (self.constants.shape(name) for name in self.index.nodes[node_index].input if self.constants.has(name))
        return all(shape is not None and prod(shape) == 1 for shape in shapes)

    @cached_property
    def evidence(self) -> set[int]:
        """The nodes that bring two things together that depend on the input, and are neither an activation nor the sum
        of two maps of one shape.
        """
        found = set[int]()
        for node_index in self.order:
            operator = self.index.operators[node_index]
            if operator in _WHOLE:
                found.add(node_index)
            elif operator in _PRODUCTS | _SUMS and node_index not in self.activations:
                names = [name for name in self.read(node_index) if self._is_float(name)]
                if len(names) > 1 and (operator in _PRODUCTS or self._broadcasts(names)):
                    found.add(node_index)
        return found

    def _is_float(self, name: str) -> bool:
        kind = self.shapes.lookup(name)[0]
        return not kind or float_dtype(kind) is not None

    def _broadcasts(self, names: list[str]) -> bool:
        first, second = (self.shapes.lookup(name)[1] for name in names[:2])
        return first is not None and second is not None and first != second

    def feature(self, name: str) -> FeatureMap | None:
        """The map [N, C, H, W] that a tensor is."""
        if not self.shapes.is_feature_map(name):
            return None
        kind, shape = self.shapes.lookup(name)
        dtype = float_dtype(kind)
        if shape is None or dtype is None:
            return None
        batch, channels, height, width = (size if isinstance(size, int) else None for size in shape)
        if channels is None or channels < 1:
            return None
        return FeatureMap(channels, height, width, dtype, batch, label=name)

    @cached_property
    def _rows(self) -> set[tuple[Dimension, ...]]:
        """The shapes [N, H * W, C] that the maps [N, H, W, C] of this graph have with their positions in one row."""
        index = self.index
        names = [*index.inputs, *(name for node_index in self.order for name in index.named_outputs[node_index])]
        shapes = {self.shapes.lookup(name)[1] for name in names if self.feature(name) is not None}
        return {row for shape in shapes if (row := _in_a_row(shape)) is not None}

    def _leaving(self, name: str) -> bool:
        """Whether a tensor is a map, or can be one with its positions in a row that nobody makes a map of again."""
        if self.feature(name) is not None:
            return True
        if (shape := self.shapes.lookup(name)[1]) not in self._rows:
            return False
        read = (self.index.named_outputs[each] for each in self.index.downstream([name]))
        return not any(_in_a_row(self.shapes.lookup(each)[1]) == shape for names in read for each in names)

    def _part(self, nodes: Iterable[int], entry: str, output: str) -> Part | None:
        """A part, if the two are maps of one shape, or the second is the first with its positions in a row."""
        feature, shape, leaving = self.feature(entry), *(self.shapes.lookup(name)[1] for name in (entry, output))
        if feature is None or shape is None or leaving not in (shape, _in_a_row(shape)):
            return None
        sorted_nodes = tuple(sorted(nodes, key=self.rank.__getitem__))
        if leaving == shape:
            return Part(sorted_nodes, entry, output, replace(feature, label=output))
        if not isinstance(channels := shape[3], int):
            return None
        last = replace(feature, channels=channels, height=feature.channels, width=feature.height, label=output)
        return Part(sorted_nodes, entry, output, last, channels_last=True, gives_tokens=True)

    @cached_property
    def _links(self) -> dict[int, _Links]:
        return {node_index: self._links_of(node_index) for node_index in self.order}

    def _links_of(self, node_index: int) -> _Links:
        index = self.index
        outputs = index.named_outputs[node_index]
        readers = frozenset(index.downstream(outputs))
        if any(name in index.outputs for name in outputs) or index.captured.get(node_index):
            readers |= {_OUTSIDE}
        reads = self.read(node_index)
        producers = [index.producer[name] for name in reads if name in index.producer]
        names = index.nodes[node_index].input if index.operators[node_index] in LINEAR else ()
        shapes = [shape for name in names if self.constants.has(name) and (shape := self.constants.shape(name))]
        weights = sum(sum(size > 1 for size in shape) > 1 for shape in shapes)
        return _Links(outputs, readers, reads, producers, weights)

    def __iter__(self) -> Iterator[Region]:
        for node_index in self.order:
            if self.index.operators[node_index] != "Identity":
                for name in self.index.named_outputs[node_index]:
                    if self._leaving(name):
                        yield from self._up_from(name, node_index)

    def shared(self, taken: Set[int]) -> Iterator[tuple[Region, list[int]]]:
        """Gates that other maps share: parts that would be regions if no product outside read what is computed in the
        middle of them, and these products. Of each product, the smallest that ends there.

        ``taken``: nodes that are known to be in other parts.
        """
        for node_index in self.order:
            if node_index in self.evidence - taken and self.index.operators[node_index] == "Mul":
                (output,) = self.index.named_outputs[node_index]
                if self.feature(output) is None:
                    continue
                region = next(self._up_from(output, node_index, closed=False), None)
                outside = self._readers_outside(region.part) if region is not None else set[int]()
                if region is not None and outside and all(self.index.operators[each] == "Mul" for each in outside):
                    yield region, sorted(outside)

    def _readers_outside(self, part: Part) -> set[int]:
        """The nodes that read what is computed in the middle of a part."""
        inner = frozenset[int]().union(*(self._links[each].readers for each in part.nodes[:-1]))
        return set(inner.difference(part.nodes, {_OUTSIDE}))

    def _up_from(self, output: str, last: int, *, closed: bool = True) -> Iterator[Region]:
        """The regions that a map leaves, the smallest first; unless ``closed``, others may read from their middle."""
        links, rank = self._links, self.rank
        if len(links[last].outputs) > 1:
            return
        pending = [(-rank[last], last)]
        entered, taken = {last}, dict[int, None]()
        missing = {output}
        evidence = set[int]()
        weights = 0
        while pending:
            _, current = heappop(pending)
            link = links[current]
            if closed and taken and not link.readers <= taken.keys():
                return
            taken[current] = None
            weights += link.weights
            if current in self.evidence:
                evidence.add(current)
            if len(taken) > (MOST_NODES if evidence else _WITHOUT) or weights > _MOST_WEIGHTS:
                return
            missing.difference_update(link.outputs)
            missing.update(link.reads)
            for producer in link.producers:
                if producer not in entered:
                    entered.add(producer)
                    heappush(pending, (-rank[producer], producer))
            if evidence and len(missing) == 1:
                (entry,) = missing
                if (part := self._part(taken, entry, output)) is not None:
                    yield Region(part, frozenset(evidence))


def _in_a_row(shape: Sequence[Dimension] | None) -> tuple[Dimension, ...] | None:
    """[N, H * W, C] of [N, H, W, C] of which these are known; None of anything else."""
    if shape is None or len(shape) != 4:
        return None
    batch, height, width, channels = shape
    return (batch, height * width, channels) if isinstance(height, int) and isinstance(width, int) else None


def overlaps(one: Part, other: Part) -> bool:
    """Whether two parts share nodes."""
    return not set(one.nodes).isdisjoint(other.nodes)


def outside_constants(part: Part, index: GraphIndex) -> Mapping[str, None]:
    """The constants that the nodes of a part read, in their order."""
    found = dict[str, None]()
    for node_index in part.nodes:
        for name in index.nodes[node_index].input:
            if name and not index.is_activation(name):
                found[name] = None
    return found
