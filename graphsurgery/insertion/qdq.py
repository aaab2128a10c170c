"""QuantizeLinear and DequantizeLinear after a block, so that the consumers of the block keep their quantised input.

The pair has the integer type of the site's own DequantizeLinear, and its scale and zero point, or such as fit what the
block gave on images. The inside of the block stays in floats of the site's type: how its inner tensors would have to be
quantised depends on the block and on data, and one quantised operand of a product saves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import AttributeProto

from ..errors import CannotRun, SiteError, option
from ..feature_map import FeatureMap
from ..graph import quantisation
from ..graph.index import GraphIndex
from ..messages import listed
from ..modelfile.operators import operator
from ..modelfile.record import RecordedPair
from ..template.names import UniqueNames
from ..template.subgraph import Subgraph
from ..template.template import Array, Template


@dataclass(frozen=True)
class Pair:
    """How a pair quantises: a real value r is the integer round(r / scale) + zero_point, held within its type."""

    scale: Array
    zero_point: Array
    domain: str = ""
    axis: tuple[AttributeProto, ...] = ()
    """attributes of scales that are not one for the whole tensor"""
    scale_from: str = "site"

    @property
    def type(self) -> str:
        """Name of the integer type."""
        return str(self.zero_point.dtype)

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        kind = np.iinfo(self.zero_point.dtype)
        return int(kind.min), int(kind.max)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that can be held; those of the widest channel where there are several."""
        scale, zero = self.scale.astype(np.float64), self.zero_point.astype(np.float64)
        low, high = self.bounds
        return float(((low - zero) * scale).min()), float(((high - zero) * scale).max())

    def fitted(self, low: float, high: float) -> Pair:
        """The pair for values from ``low`` to ``high``: symmetric if this one is, of the same integer type.

        This one if they are all zero. CannotRun if one is not finite.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        smallest, largest = self.bounds
        middle = (smallest + largest + 1) // 2
        if not np.isfinite(low) or not np.isfinite(high):
            raise CannotRun("the block gives values on these images that are not finite, so there is no scale for them")
        if int(self.zero_point) == middle:
            step, zero = max(-low, high) / (largest - middle), middle
        else:
            step = (high - low) / (largest - smallest)
            zero = round(smallest - low / step) if step else int(self.zero_point)
        scale = np.asarray(step, self.scale.dtype)
        if scale < ml_dtypes.finfo(scale.dtype).smallest_normal:  # type: ignore[no-untyped-call] # nothing but zeros
            return self
        zero_point = np.asarray(np.clip(zero, smallest, largest), self.zero_point.dtype)
        return replace(self, scale=scale, zero_point=zero_point, scale_from="images")


def needed(index: GraphIndex, tensor: str, what: str) -> bool:
    """Whether a pair is needed for the readers of a tensor to keep a quantised input: False where they are
    QuantizeLinear nodes themselves. SiteError where nothing is quantised.
    """
    if quantisation.dequantiser(index, tensor) is not None:
        return True
    if quantisation.quantisers(index, tensor):
        return False
    dynamic = any(operator(node) == quantisation.DYNAMIC for node in quantisation.consumers(index, tensor))
    why = "it is quantised when the model runs, with a scale that fits" if dynamic else "it is float in this model"
    raise SiteError(
        f"{what} has no scale to quantise the block's output with: no DequantizeLinear makes it, and no QuantizeLinear "
        f"reads it ({why}); leave out {option('qdq')} there"
    )


def pair_at(index: GraphIndex, tensor: str, what: str) -> Pair:
    """The pair that a tensor comes through, read from the file. SiteError where its scale is computed."""
    node_index = quantisation.dequantiser(index, tensor)
    assert node_index is not None
    node = index.nodes[node_index]
    if not all(index.is_constant(name) for name in node.input[1:] if name):
        raise SiteError(f"the scale of {what} is computed when the model runs, so {option('qdq')} cannot use it")
    scale = index.model.tensor(node.input[1])
    attributes = tuple(a for a in node.attribute if a.name in ("axis", "block_size"))
    if any(a.name == "block_size" and a.i for a in attributes):
        raise SiteError(f"{what} is quantised in blocks with a scale each, which {option('qdq')} cannot do")
    if scale.size == 1:
        scale, attributes = scale.reshape(()), ()
    zero_point = _zero_point(index, node, scale, what)
    if zero_point.dtype.kind not in "iu" or zero_point.dtype.itemsize > 2:
        raise SiteError(
            f"{what} is held in {zero_point.dtype}, which {option('qdq')} cannot do; it does 8 and 16 bit integers"
        )
    return Pair(scale, zero_point, node.domain, attributes)


def _zero_point(index: GraphIndex, node: onnx.NodeProto, scale: Array, what: str) -> Array:
    """The zero point of a DequantizeLinear; where it has none, zeros of the type that its QuantizeLinear gives."""
    if len(node.input) > 2 and node.input[2]:
        values: Array = index.model.tensor(node.input[2]).reshape(scale.shape)
        return values
    producer = index.producing(node.input[0])
    if producer is None or operator(producer) != quantisation.QUANTISE:
        raise SiteError(f"the integer type of {what} is not in the model, so {option('qdq')} cannot use it")
    if len(producer.input) > 2 and producer.input[2] and index.is_constant(producer.input[2]):
        return np.zeros(scale.shape, index.model.tensor(producer.input[2]).dtype)
    kinds = [a.i for a in producer.attribute if a.name == "output_dtype" and a.i]
    kind = onnx.helper.tensor_dtype_to_np_dtype(kinds[0]) if kinds else np.dtype(np.uint8)
    return np.zeros(scale.shape, kind)


# ---------------------------------------------------------------------- in the file


def constants(t: Template, pair: Pair) -> tuple[str, str]:
    """Add scale and zero point of a pair to the template of the block before it; returns their names."""
    return t.own(pair.scale, "qdq.scale").name, t.own(pair.zero_point, "qdq.zero_point").name


def append(
    subgraph: Subgraph, pair: Pair, given: tuple[str, str], feature: FeatureMap, names: UniqueNames, scope: str
) -> RecordedPair:
    """Put the pair, with ``given`` constants, after a lowered block; its last tensor becomes the output.

    Returns the record of the pair.

    Where the scale has another float type than the site, as in half-precision models of old opsets, Casts go around.
    """
    inner, nodes = subgraph.output, list[onnx.NodeProto]()

    def add(op_type: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        name = names.reserve(f"{scope}/{op_type}")
        output = names.reserve(f"{name}_output_0")
        nodes.append(onnx.helper.make_node(op_type, inputs, [output], name=name, domain=domain, **attributes))
        return output

    wide = onnx.helper.np_dtype_to_tensor_dtype(pair.scale.dtype)
    casts = wide != feature.onnx_type
    value = add("Cast", [inner], to=wide) if casts else inner
    for op_type in (quantisation.QUANTISE, quantisation.DEQUANTISE):
        value = add(op_type, [value, *given], pair.domain)
        nodes[-1].attribute.extend(pair.axis)
    if casts:
        value = add("Cast", [value], to=feature.onnx_type)
    subgraph.nodes.extend(nodes)
    subgraph.output = value
    return RecordedPair(pair.type, pair.scale_from, inner, *given, tuple(node.name for node in nodes))


# ---------------------------------------------------------------------- warnings


def becoming_float(index: GraphIndex, tensor: str, consumers: Sequence[str]) -> str | None:
    """A warning about the consumers of a tensor that is dequantised for them, where no pair follows the block."""
    if quantisation.dequantiser(index, tensor) is None or not consumers:
        return None
    they, compute = ("they", "compute") if len(consumers) > 1 else ("it", "computes")
    advice = f"{option('qdq', 'int8')} quantises the block's output, so that nothing changes for what reads it"
    try:
        pair_at(index, tensor, "its input")
    except SiteError as error:
        advice = f"{error.message}: quantise the model anew with the tool that it was quantised with"
    return f"{listed(consumers, 3)} had a quantised input; behind the block {they} {compute} in float; {advice}"


def clipping(pair: Pair, bounded: bool) -> str | None:
    """A warning about values beyond the range of a pair that has the site's scale."""
    if bounded or pair.scale_from != "site":
        return None
    low, high = pair.range
    return (
        f"the block's output is quantised with the scale of its input, and this block can give more than it gets: what "
        f"is beyond {low:.3g} ... {high:.3g} is clipped; "
        f"{option('qdq_scale', 'images')} measures the range of its output"
    )


def attenuates(subgraph: Subgraph, x: str) -> bool:
    """Whether a block's nodes show that it gives x times numbers from 0 to 1, so that its range is within that of x."""
    producers = {name: node for node in subgraph.nodes for name in node.output}

    def is_gate(name: str) -> bool:
        node = producers.get(name)
        if node is None or operator(node) in _GATES:
            return node is not None
        if operator(node) in ("Mul", "Concat", "Min"):
            return all(is_gate(each) for each in node.input)
        return operator(node) in _KEEP and is_gate(node.input[0])

    def is_within(name: str) -> bool:
        node = producers.get(name)
        if node is None:
            return name == x
        if operator(node) == "Mul":
            first, second = node.input
            return any(is_within(a) and is_gate(b) for a, b in ((first, second), (second, first)))
        return operator(node) in ("Identity", "Cast") and is_within(node.input[0])

    return is_within(subgraph.output)


_GATES = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
_KEEP = frozenset(
    {"Cast", "Reshape", "Transpose", "Expand", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Identity", "Tile"}
)
