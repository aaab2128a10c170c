"""AIFI: a transformer encoder layer on the deepest map (RT-DETR)."""

from __future__ import annotations

from graphsurgery.recognition import Pattern, TokenPath, Value

_MATRIX = ("MatMul", "Gemm", "Einsum", "Attention", "MultiHeadAttention")
_NORM = ("LayerNormalization", "ReduceMean", "SimplifiedLayerNormalization")
AIFI = Pattern(
    "AIFI",
    "transformer encoder layer over the positions of a map (RT-DETR: intra-scale feature interaction)",
    TokenPath(
        Value(),
        contains=[("Softmax", "Attention", "MultiHeadAttention"), _MATRIX, _NORM],
        ends=("Reshape", "Transpose"),
    ),
    aliases=("EncoderLayer", "TransformerEncoderLayer"),
)
