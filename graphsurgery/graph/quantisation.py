"""What is quantised in a graph, and how: the pairs of QuantizeLinear and DequantizeLinear, and tensors of integers.

A module or a block gives one float tensor, its *result*. What a tool put behind it belongs to the result: the pair
through which others read it, and the Cast that brings it to the model's own half precision. A block that is inserted
stands behind those where all readers see the result through the same ones, so that the nodes in front of it stay as
they are, fused and in integers; else it stands at the result itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx
from onnx import TensorProto

from .index import GraphIndex

QUANTISE = "QuantizeLinear"
DEQUANTISE = "DequantizeLinear"
DYNAMIC = "DynamicQuantizeLinear"
TO_INTEGERS = frozenset({QUANTISE, DYNAMIC})
PASSING = TO_INTEGERS | {DEQUANTISE, "Cast"}
"""what stands between a tensor and those that read it in another form"""
_HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_SHAPES = frozenset({"Shape", "Size"})
_GIVE_FLOATS = frozenset({"ConvInteger", "MatMulInteger", DEQUANTISE, "DynamicQuantizeMatMul", "MatMulIntegerToFloat"})
_SAME_TYPE = frozenset(
    {"MaxPool", "Split", "Reshape", "Resize", "Upsample", "Concat", "Slice", "Transpose", "Squeeze", "Unsqueeze"}
    | {"Flatten", "Identity", "Pad", "Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Relu", "Clip"}
)
"""operators that 8-bit graphs use on integers as they are"""


def producer(index: GraphIndex, tensor: str) -> onnx.NodeProto | None:
    """The node that produces a tensor."""
    position = index.producer.get(tensor)
    return index.nodes[position] if position is not None else None


def consumers(index: GraphIndex, tensor: str) -> list[onnx.NodeProto]:
    """The nodes that read the values of a tensor."""
    nodes, positions = index.nodes, index.consumers.get(tensor, ())
    return [nodes[position] for position in positions if nodes[position].op_type not in _SHAPES]


def only_consumer(index: GraphIndex, tensor: str) -> onnx.NodeProto | None:
    """The one node that reads the values of a tensor which is no output of the model; None where there are more."""
    found = consumers(index, tensor)
    return found[0] if len(found) == 1 and found[0].output and tensor not in index.outputs else None


def behind(index: GraphIndex, tensor: str) -> str | None:
    """The tensor through which everything reads this one: behind its pair of QuantizeLinear and DequantizeLinear, or
    behind a Cast to half precision. None where some read it directly, or through another pair.
    """
    reader = only_consumer(index, tensor)
    if reader is None:
        return None
    if reader.op_type == QUANTISE:
        reader = only_consumer(index, reader.output[0])
        return str(reader.output[0]) if reader is not None and reader.op_type == DEQUANTISE else None
    return str(reader.output[0]) if reader.op_type == DEQUANTISE or _narrows(reader) else None


def outlet(index: GraphIndex, tensor: str) -> str:
    """The tensor at the end of what ``behind`` gives."""
    while (further := behind(index, tensor)) is not None:
        tensor = further
    return tensor


def result(index: GraphIndex, tensor: str, inside: set[int]) -> str:
    """The float tensor that a module makes, given one that leaves it: in front of the quantisation and the Casts at its
    end, as far as these are among the nodes of the module (``inside``).
    """
    while True:
        position = index.producer.get(tensor)
        node = index.nodes[position] if position in inside else None
        if node is None or not node.input or not (_is_of_quantisation(node) or node.op_type == "Cast"):
            return tensor
        if index.producer.get(node.input[0]) not in inside:
            return tensor
        tensor = node.input[0]


def root(index: GraphIndex, tensor: str) -> str:
    """The tensor that this one is another form of: in front of its quantisation and its Casts."""
    for _ in range(len(index.nodes)):  # a file can have a cycle
        node = producer(index, tensor)
        if node is None or node.op_type not in PASSING or not node.input:
            break
        tensor = str(node.input[0])
    return tensor


def ends_result(index: GraphIndex, tensor: str) -> bool:
    """Whether a tensor that a module gives is its result in its last form: dequantised, or cast to half precision."""
    node = producer(index, tensor)
    return node is not None and (node.op_type == DEQUANTISE or _narrows(node))


def dequantiser(index: GraphIndex, tensor: str) -> int | None:
    """Position of the DequantizeLinear that makes a tensor, a Cast in between looked through."""
    position = index.producer.get(tensor)
    if position is not None and index.nodes[position].op_type == "Cast":
        position = index.producer.get(index.nodes[position].input[0])
    return position if position is not None and index.nodes[position].op_type == DEQUANTISE else None


def quantisers(index: GraphIndex, tensor: str) -> list[onnx.NodeProto]:
    """The QuantizeLinear nodes that read a tensor, a Cast in between looked through."""
    found = []
    for node in consumers(index, tensor):
        node = (only_consumer(index, node.output[0]) if node.op_type == "Cast" and node.output else None) or node
        if node.op_type == QUANTISE:
            found.append(node)
    return found


def dequantised(index: GraphIndex, tensor: str) -> Iterator[str]:
    """The tensors that DequantizeLinear nodes make of a float tensor which QuantizeLinear nodes read."""
    for node in quantisers(index, tensor):
        yield from (str(r.output[0]) for r in consumers(index, node.output[0]) if r.op_type == DEQUANTISE)


def feeding(index: GraphIndex, nodes: Collection[int], operators: Collection[str]) -> set[int]:
    """The nodes of these operators in front of some nodes, and of nothing else."""
    found, pending = set[int](), list(nodes)
    while pending:
        for name in index.reads(pending.pop()):
            maker = index.producer.get(name)
            if maker is None or maker in nodes or maker in found or index.nodes[maker].op_type not in operators:
                continue
            outputs = index.nodes[maker].output
            after = {reader for output in outputs for reader in index.consumers.get(output, ())}
            if index.outputs.keys().isdisjoint(outputs) and all(r in nodes or r in found for r in after):
                found.add(maker)
                pending.append(maker)
    return found


def holds_integers(index: GraphIndex, tensor: str) -> bool:
    """Whether the operators tell that a tensor holds quantised integers, where its type is not known."""
    for _ in range(len(index.nodes)):  # a file can have a cycle
        node = producer(index, tensor)
        if node is None:
            return False
        if node.op_type in _SAME_TYPE and node.input:
            tensor = node.input[0]
            continue
        quantised = node.op_type in (QUANTISE, DYNAMIC) or node.op_type.startswith("QLinear") or node.op_type == "QGemm"
        return quantised and node.op_type not in _GIVE_FLOATS
    return False


def _is_of_quantisation(node: onnx.NodeProto) -> bool:
    return node.op_type in (QUANTISE, DEQUANTISE, DYNAMIC)


def _narrows(node: onnx.NodeProto) -> bool:
    """Whether a node casts to half precision."""
    return node.op_type == "Cast" and any(a.name == "to" and a.i in _HALVES for a in node.attribute)
