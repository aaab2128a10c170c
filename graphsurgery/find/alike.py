"""What is attention by its form, where no numbers say which block it is."""

from __future__ import annotations

from ..graph.index import GraphIndex
from ..graph.part import Part
from .reading import Reading
from .regions import Region
from .uses import Kind

_BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Clip"})
"""what makes a gate of a number"""
_MIXING = frozenset(
    {
        "AveragePool",
        "Conv",
        "ConvTranspose",
        "Einsum",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "InstanceNormalization",
    }
    | {
        "LayerNormalization",
        "GroupNormalization",
        "MatMul",
        "MaxPool",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceSum",
    }
)
"""what brings positions or channels together"""
_SHAPING = frozenset(
    {"Cast", "Concat", "Constant", "Expand", "Gather", "Identity", "Shape", "Slice", "Squeeze", "Unsqueeze"}
)


def is_gate(region: Region, index: GraphIndex) -> bool:
    """Whether a part multiplies what enters with a bounded number that is computed of several of its elements."""
    part = region.part
    last = part.nodes[-1]
    operators = {index.operators[node_index] for node_index in part.nodes}
    return (
        index.operators[last] == "Mul"
        and part.input in index.nodes[last].input
        and not operators.isdisjoint(_BOUNDED)
        and not operators.isdisjoint(_MIXING)
    )


def is_attention(reading: Reading) -> bool:
    """Whether a part weighs what it has with a softmax of products."""
    return {Kind.SOFTMAX, Kind.PRODUCT} <= reading.kinds


def described(part: Part, index: GraphIndex, like: str | None) -> str:
    """What such a part is, in words."""
    names = [index.operators[node_index] for node_index in part.nodes]
    operators = ", ".join(dict.fromkeys(name for name in names if name not in _SHAPING))
    what = "a gate" if index.operators[part.nodes[-1]] == "Mul" else "attention"
    return f"{what} like {like}, with {operators}" if like else f"{what} of its own kind: {operators}"
