"""What is quantised in a graph, and how: the pairs of QuantizeLinear and DequantizeLinear, and tensors of integers.

A module or a block gives one float tensor, its *result*. What a tool put after it belongs to the result: the pair
through which others read it, and the Cast that brings it to the model's own half precision. A block is inserted after
those where all consumers see the result through the same ones, so that the nodes upstream of it stay as they are,
fused and in integers; else at the result itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx
from onnx import TensorProto

from ..modelfile.operators import operator
from .index import GraphIndex

QUANTISE = "QuantizeLinear"
DEQUANTISE = "DequantizeLinear"
DYNAMIC = "DynamicQuantizeLinear"
TO_INTEGERS = frozenset({QUANTISE, DYNAMIC})
PASSING = TO_INTEGERS | {DEQUANTISE, "Cast"}
"""what stands between a tensor and those that read it in another form"""
_HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_SHAPES = frozenset({"Shape", "Size"})
_SAME_TYPE = frozenset(
    {"MaxPool", "Split", "Reshape", "Resize", "Upsample", "Concat", "Slice", "Transpose", "Squeeze", "Unsqueeze"}
    | {"Flatten", "Identity", "Pad", "Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Relu", "Clip"}
)
"""operators that 8-bit graphs use on integers as they are"""


def consumers(index: GraphIndex, tensor: str) -> list[onnx.NodeProto]:
    """The nodes that read the values of a tensor."""
    return [index.nodes[each] for each in _consumers(index, tensor)]


def _consumers(index: GraphIndex, tensor: str) -> list[int]:
    operators = index.operators
    return [each for each in index.consumers.get(tensor, ()) if operators[each] not in _SHAPES]


def only_consumer(index: GraphIndex, tensor: str) -> onnx.NodeProto | None:
    """The one node that reads the values of a tensor which is no output of the model; None where there are more."""
    found = _consumers(index, tensor)
    alone = len(found) == 1 and tensor not in index.outputs and index.nodes[found[0]].output
    return index.nodes[found[0]] if alone else None


def behind(index: GraphIndex, tensor: str) -> str | None:
    """The tensor through which everything reads this one: after its pair of QuantizeLinear and DequantizeLinear, or
    after a Cast to half precision. None where some read it directly, or through another pair.
    """
    if PASSING.isdisjoint([index.operators[each] for each in index.consumers.get(tensor, ())]):
        return None  # most tensors: nothing is made of their nodes
    consumer = only_consumer(index, tensor)
    if consumer is not None and operator(consumer) == QUANTISE:
        consumer = only_consumer(index, consumer.output[0])
        return str(consumer.output[0]) if consumer is not None and operator(consumer) == DEQUANTISE else None
    return str(consumer.output[0]) if consumer is not None and _ends_result(consumer) else None


def outlet(index: GraphIndex, tensor: str) -> str:
    """The tensor at the end of what ``behind`` gives."""
    while (further := behind(index, tensor)) is not None:
        tensor = further
    return tensor


def result(index: GraphIndex, tensor: str, inside: set[int]) -> str:
    """The float tensor that a module gives, from one that leaves it: upstream of the quantisation and the Casts at its
    end, as far as these are among the nodes of the module (``inside``).
    """
    while (node_index := index.producer.get(tensor)) in inside:
        node = index.nodes[node_index]
        if operator(node) not in PASSING or not node.input or index.producer.get(node.input[0]) not in inside:
            break
        tensor = node.input[0]
    return tensor


def root(index: GraphIndex, tensor: str) -> str:
    """The tensor that this one is another form of: upstream of its quantisation and its Casts."""
    for _ in range(len(index.nodes)):  # a file can have a cycle
        node = index.producing(tensor)
        if node is None or operator(node) not in PASSING or not node.input:
            break
        tensor = str(node.input[0])
    return tensor


def ends_result(index: GraphIndex, tensor: str) -> bool:
    """Whether a tensor that a module gives is its result in its last form: dequantised, or cast to half precision."""
    node = index.producing(tensor)
    return node is not None and _ends_result(node)


def dequantiser(index: GraphIndex, tensor: str) -> int | None:
    """Index of the DequantizeLinear that produces a tensor, a Cast in between looked through."""
    node = index.producing(tensor)
    if node is not None and operator(node) == "Cast":
        tensor = node.input[0]
        node = index.producing(tensor)
    return index.producer[tensor] if node is not None and operator(node) == DEQUANTISE else None


def quantisers(index: GraphIndex, tensor: str) -> list[onnx.NodeProto]:
    """The QuantizeLinear nodes that read a tensor, a Cast in between looked through."""
    found = (
        only_consumer(index, node.output[0]) if operator(node) == "Cast" and node.output else node
        for node in consumers(index, tensor)
    )
    return [node for node in found if node is not None and operator(node) == QUANTISE and node.output]


def dequantised(index: GraphIndex, tensor: str) -> Iterator[str]:
    """The tensors that DequantizeLinear nodes give of a float tensor which QuantizeLinear nodes read."""
    for node in quantisers(index, tensor):
        pairs = (c for quantised in node.output[:1] for c in consumers(index, quantised) if operator(c) == DEQUANTISE)
        yield from (str(name) for each in pairs for name in each.output[:1])


def feeding(index: GraphIndex, nodes: Collection[int], operators: Collection[str]) -> set[int]:
    """The nodes of these operators upstream of some nodes, and of nothing else."""
    found, pending = set[int](), list(nodes)
    while pending:
        for name in index.reads(pending.pop()):
            upstream = index.producer.get(name)
            if upstream is None or upstream in nodes or upstream in found:
                continue
            node = index.nodes[upstream]
            others = set(index.downstream(node.output)).difference(nodes, found)
            if operator(node) in operators and not others and index.outputs.keys().isdisjoint(node.output):
                found.add(upstream)
                pending.append(upstream)
    return found


def holds_integers(index: GraphIndex, tensor: str) -> bool:
    """Whether the operators tell that a tensor holds quantised integers, where its type is not known."""
    node = index.producing(tensor)
    for _ in index.nodes:  # a file can have a cycle
        if node is None or operator(node) not in _SAME_TYPE or not node.input:
            break
        node = index.producing(node.input[0])
    return node is not None and (operator(node) in {*TO_INTEGERS, "QGemm"} or operator(node).startswith("QLinear"))


def _ends_result(node: onnx.NodeProto) -> bool:
    """Whether a node dequantises, or casts to half precision."""
    narrows = operator(node) == "Cast" and any(a.name == "to" and a.i in _HALVES for a in node.attribute)
    return narrows or operator(node) == DEQUANTISE
