"""What a block is, and which ones are installed.

The author of a block needs what is exported here: ``Block`` to derive from, ``Setting`` for its hyper-parameters,
``FeatureMap`` (the site) and ``Template`` (the builder) in the signatures of its methods, ``Variable`` for the tensors
that a template writes, ``Array`` for weights, ``BlockError`` for sites and settings that it refuses, ``bn_shapes`` and
``layer_shapes`` to state its parameters, ``SATURATED`` for gates that are to be 1.
"""

from __future__ import annotations

from onnx_graphsurgeon import Variable

from ..errors import BlockError
from ..feature_map import FeatureMap
from ..template import Template
from .block import Array, Block, Module
from .initial_weights import SATURATED, bn_shapes, layer_shapes
from .setting import Setting

__all__ = [
    "SATURATED",
    "Array",
    "Block",
    "BlockError",
    "FeatureMap",
    "Module",
    "Setting",
    "Template",
    "Variable",
    "bn_shapes",
    "layer_shapes",
]
