"""Work: the multiply-accumulates of nodes, and the largest tensor that they give, by the sizes that are known.

Counted are convolutions and products of matrices (:data:`COUNTED`), biases left out; all else counts nothing. What is
not known is None, since a guess would be taken for a count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx

from ..errors import ModelError
from ..feature_map import Dimension
from ..messages import megabytes, shape_text
from ..modelfile import payload
from ..modelfile.model import ModelFile
from ..modelfile.operators import STANDARD, operator
from ..modelfile.subgraphs import nested
from ..request import Shapes
from .index import GraphIndex
from .local_functions import by_key, key_of
from .quantisation import PASSING
from .shapes import ShapeTable, TensorType
from .written_out import without_calls

Sizes: TypeAlias = tuple[int, ...]

_PRODUCTS = re.compile("Conv|Gemm|MatMul|Einsum|Attention|Attn|DCN|LSTM|GRU|RNN")
"""in the names of operators that multiply and add, of those too that are not counted"""
_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_OUTPUT = -1


class _Counted(NamedTuple):
    """How the nodes of an operator are counted."""

    sizes: tuple[int, ...]
    """of which inputs the sizes are needed; -1: those of the output"""
    macs: Callable[..., int | None]
    """gives the multiply-accumulates of a node with these sizes; None where they cannot be counted"""


@dataclass(frozen=True)
class Activation:
    """A tensor that a node computes."""

    shape: Sizes
    bytes: int

    def __str__(self) -> str:
        return f"{shape_text(self.shape)}, {megabytes(self.bytes)}"


@dataclass(frozen=True)
class Totals:
    """What a model takes."""

    macs: int | None
    """multiplications with an addition each; None where they are not known"""
    largest_activation: Activation | None
    """None likewise"""

    def __str__(self) -> str:
        macs = "MACs not known" if self.macs is None else f"{self.macs:,} MACs"
        return f"{macs}; largest activation {self.largest_activation or 'not known'}"


class Work:
    """What the nodes of a graph take.

    Parameters
    ----------
    index:
        The graph. A call of a local function in it is not looked into, and not known: see written_out.py.
    lookup:
        Types of its tensors: :meth:`.ShapeTable.lookup`, or :meth:`.ShapeTable.known`, which infers none.
    """

    def __init__(self, index: GraphIndex, lookup: Callable[[str], TensorType]) -> None:
        self.index = index
        self.lookup = lookup
        self._weights = index.model.structure.graph.initializer
        self._counted: dict[int, int | None] = {}

    @classmethod
    def of(cls, model: ModelFile, sizes: Shapes = MappingProxyType({})) -> Work:
        """The work of a model, its calls of functions written out, by shapes that are inferred as far as it does not
        state them. ``sizes``: input -> its sizes, where the model leaves them open.
        """
        if model.structure.functions:
            with suppress(ModelError):
                model = without_calls(model, always=True)
        index = GraphIndex(model)
        shapes = ShapeTable(index, sizes)
        shapes.infer()
        return cls(index, shapes.lookup)

    @cached_property
    def totals(self) -> Totals:
        """Those of the whole graph."""
        return Totals(self.macs(), self.largest())

    def macs(self, nodes: Iterable[int] | None = None) -> int | None:
        """Multiplications with an addition each, of the whole graph or of the nodes of these indexes.

        None where a size of one of them is not known, where one multiplies in a way that is not counted, and where one
        has a node that multiplies in its body: how often that runs is not known.
        """
        total = 0
        for node_index in self._multiplying if nodes is None else filter(self._multiplying.__contains__, nodes):
            if node_index not in self._counted:
                self._counted[node_index] = self._macs_of(node_index)
            found = self._counted[node_index]
            if found is None:
                return None
            total += found
        return total

    def largest(self, nodes: Iterable[int] | None = None) -> Activation | None:
        """The largest tensor that the nodes of the graph, or those of these indexes, compute from its inputs.

        None where there is none, and where the size of one is not known.
        """
        index = self.index
        chosen = range(len(index.nodes)) if nodes is None else sorted(nodes)
        names = (
            name for node_index in chosen if node_index in index.active for name in index.named_outputs[node_index]
        )
        found = list[Activation]()
        for kind, shape in dict.fromkeys(map(self.lookup, names)):  # a large model has few
            sizes = _whole(shape)
            if sizes is None or not kind:
                return None
            width = int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize)
            found.append(Activation(sizes, prod(sizes) * width))
        return max(found, key=lambda each: each.bytes, default=None)

    def named(self, names: Iterable[str]) -> set[int]:
        """The indexes of the nodes of these names."""
        return {node_index for name in names for node_index in self.index.node_names.get(name, ())}

    @cached_property
    def _multiplying(self) -> dict[int, _Counted | None]:
        """Index of a node that multiplies and adds -> how that is counted; None: it is not."""
        names = set(self.index.operators)
        counts = {name: COUNTED.get(name) for name in names if name in COUNTED or _PRODUCTS.search(name)}
        found = {n: counts[name] for n, name in enumerate(self.index.operators) if name in counts}
        if names & _BODIES:
            found |= {n: None for n, node in enumerate(self.index.nodes) if self._multiplies_inside(node)}
        if functions := by_key(self.index.model.structure.functions):
            found |= {n: None for n, node in enumerate(self.index.nodes) if key_of(node) in functions}
        return found

    def _multiplies_inside(self, node: onnx.NodeProto) -> bool:
        inner = (each for body in nested(node) for each in body.node)
        return operator(node) in _BODIES and any(_PRODUCTS.search(operator(each)) for each in inner)

    def _macs_of(self, node_index: int) -> int | None:
        counted = self._multiplying[node_index]
        if counted is None:
            return None
        node, given = self.index.nodes[node_index], self.index.named_outputs[node_index]
        try:
            sizes = [self._known(given[0] if at == _OUTPUT else node.input[at]) for at in counted.sizes]
            return None if None in sizes else counted.macs(node, *sizes)
        except (ValueError, LookupError, ArithmeticError):  # it contradicts itself: too few inputs or axes, say
            return None

    def _known(self, tensor: str) -> Sizes | None:
        """The sizes of a tensor where all are numbers; of a constant, its own."""
        if (place := self.index.initializers.get(tensor)) is not None:
            return tuple(self._weights[place].dims)
        known = _whole(self.lookup(tensor)[1])
        return self._of_constant(tensor) if known is None else known

    def _of_constant(self, tensor: str) -> Sizes | None:
        """The sizes of a weight, as its message states them; of one that is quantised, those of its integers."""
        index = self.index
        for _ in range(len(index.nodes) + 1):  # a file can have a cycle
            if (place := index.initializers.get(tensor)) is not None:
                return tuple(self._weights[place].dims)
            node = index.producing(tensor)
            if node is not None and operator(node) == "Constant":
                value = payload.of_constant(node)
                return tuple(value.dims) if value is not None else None
            if node is None or operator(node) not in PASSING or not node.input or tensor != node.output[0]:
                break
            tensor = node.input[0]
        return None


@lru_cache(maxsize=4096)
def _whole(shape: tuple[Dimension, ...] | None) -> Sizes | None:
    """A shape all of whose sizes are numbers; None for any other."""
    known = tuple(size for size in shape or () if isinstance(size, int))
    return known if shape is not None and len(known) == len(shape) else None


# ---------------------------------------------------------------------- operators


def _convolution(node: onnx.NodeProto, output: Sizes, weight: Sizes) -> int:
    """``output``: each value of which is a sum; of a transposed one, the input. ``weight``: [M, C / group, ...]."""
    return prod(output) * prod(weight[1:])


def _product(node: onnx.NodeProto, a: Sizes, b: Sizes) -> int | None:
    """Of two matrices, or of many, either of which may be turned."""
    turned = _attributes(node)
    if turned.get("transBatchA") or turned.get("transBatchB"):
        return None
    a, b = (a if len(a) > 1 else (1, *a)), (b if len(b) > 1 else (*b, 1))
    rows, inner = (a[-1], a[-2]) if turned.get("transA") else (a[-2], a[-1])
    columns = b[-2] if turned.get("transB") else b[-1]
    return prod(np.broadcast_shapes(a[:-2], b[:-2])) * rows * inner * columns


def _einsum(node: onnx.NodeProto, a: Sizes, b: Sizes) -> int | None:
    """Of two factors each of whose axes has a letter."""
    terms = str(_attributes(node).get("equation", b""), "utf-8").replace(" ", "").partition("->")[0].split(",")
    if len(terms) != 2 or any("." in term for term in terms):
        return None
    pairs = [*zip(terms[0], a, strict=True), *zip(terms[1], b, strict=True)]
    return prod(max(size for name, size in pairs if name == letter) for letter in dict(pairs))


def _attention(node: onnx.NodeProto, q: Sizes, k: Sizes, v: Sizes) -> int | None:
    """ONNX's: the product of q and k, and that of the weights and v. Not with keys from before, nor onnxruntime's."""
    if node.domain not in STANDARD or any(node.input[4:6]):
        return None
    if len(q) == 4:
        images, heads, queries, wide = q
        return images * heads * queries * k[2] * (wide + v[3])
    told = _attributes(node)
    heads, fewer = int(told["q_num_heads"]), int(told["kv_num_heads"])
    return q[0] * q[1] * k[1] * (q[2] + v[2] // fewer * heads)


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {each.name: payload.attribute_value(each) for each in node.attribute}


_CONVOLUTIONS, _MATRICES = _Counted((_OUTPUT, 1), _convolution), _Counted((0, 1), _product)
COUNTED: Mapping[str, _Counted] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "DeformConv"), _CONVOLUTIONS),
    "QLinearConv": _Counted((_OUTPUT, 3), _convolution),
    "ConvTranspose": _Counted((0, 1), _convolution),
    **dict.fromkeys(("Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulInteger"), _MATRICES),
    **dict.fromkeys(("TransposeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), _MATRICES),
    **dict.fromkeys(("QGemm", "QLinearMatMul"), _Counted((0, 3), _product)),
    "Einsum": _Counted((0, 1), _einsum),
    "Attention": _Counted((0, 1, 2), _attention),
}
"""operator -> how many multiply-accumulates a node of it takes"""
