"""ConvNeXtBlock: depthwise convolution, normalisation and two layers over the channels, with a shortcut."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, linear, pointwise, spatial, unstrided
from graphsurgery.recognition import OneOf, Op, Part, Pattern, TokenPath, Value

_MATRIX = ("MatMul", "Gemm", "FusedMatMul")
_NORM = ("LayerNormalization", "SimplifiedLayerNormalization", "ReduceMean")
_x = Value()
_depth = Part("conv_dw", "DWConv", _x, where=(spatial, unstrided, linear))
_tokens = TokenPath(_depth, contains=[_MATRIX, _NORM, ("Gelu", "Erf", "Tanh", "Sigmoid", "Relu")])
_hidden = Part("mlp.fc1", "Conv", _depth, where=(pointwise, active))
_maps = Part("mlp.fc2", "Conv", _hidden, where=(pointwise, linear))
_branch = OneOf(_tokens, Op("Mul", _tokens), _maps)
CONVNEXT = Pattern(
    "ConvNeXtBlock",
    "depthwise convolution, normalisation, two layers over the channels, shortcut (ConvNeXt, ConvNeXt V2)",
    Op("Add", _x, _branch),
)
