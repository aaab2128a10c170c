"""ConvNeXtBlock: depthwise convolution, normalisation and two layers over the channels, with a shortcut."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, linear, pointwise, spatial, unstrided
from graphsurgery.recognition import OneOf, Op, Part, Pattern, RecognisedBlock, TokenPath, Value

_MATRIX = ("MatMul", "Gemm", "FusedMatMul")
_NORM = ("LayerNormalization", "SimplifiedLayerNormalization", "ReduceMean")


def _by_layer(conv: RecognisedBlock) -> bool:
    """Whether a convolution is normalised over its channels; by BatchNorm, the block is another one (mixers.py)."""
    return conv.facts.get("normalisation") not in (None, "BatchNormalization")


_x = Value()
_depth = Part("conv_dw", "DWConv", _x, where=(spatial, unstrided, linear))
_tokens = TokenPath(_depth, contains=[_MATRIX, _NORM, ("Gelu", "Erf", "Tanh", "Sigmoid", "Relu")])
_normed = Part("conv_dw", "DWConv", _x, where=(spatial, unstrided, linear, _by_layer))
_hidden = Part("mlp.fc1", "Conv", _normed, where=(pointwise, active))
_maps = Part("mlp.fc2", "Conv", _hidden, where=(pointwise, linear))
_branch = OneOf(_tokens, Op("Mul", _tokens), _maps, Op("Mul", _maps))
CONVNEXT = Pattern(
    "ConvNeXtBlock",
    "depthwise convolution, normalisation, two layers over the channels, shortcut (ConvNeXt, ConvNeXt V2)",
    Op("Add", _x, _branch),
)
