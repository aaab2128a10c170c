"""AIFI: a transformer encoder layer on the deepest map (RT-DETR)."""

from __future__ import annotations

from collections.abc import Set

from graphsurgery.recognition import Pattern, TokenPath, Value, View

_MATRIX = ("MatMul", "Gemm", "Einsum", "Attention", "MultiHeadAttention")
_NORM = ("LayerNormalization", "ReduceMean", "SimplifiedLayerNormalization")
_ATTENTION = ("Softmax", "Attention", "MultiHeadAttention")


def _normalises_last(view: View, nodes: Set[int]) -> bool:
    """Whether the attention reads the tokens as they are. The blocks of backbones (EdgeNeXt's SDTA, MobileViT, DaViT)
    normalise them first.
    """
    attention = min(view.place[p] for p in nodes if view.op(p) in _ATTENTION)
    return attention < min(view.place[p] for p in nodes if view.op(p) in _NORM)


AIFI = Pattern(
    "AIFI",
    "transformer encoder layer over the positions of a map (RT-DETR: intra-scale feature interaction)",
    TokenPath(
        Value(),
        contains=[_ATTENTION, _MATRIX, _NORM],
        ends=("Reshape", "Transpose"),
        where=_normalises_last,
    ),
    aliases=("EncoderLayer", "TransformerEncoderLayer"),
)
