"""Nothing: the block that gives back what it gets. It stands in the place of a part that is taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_graphsurgeon as gs

from ..feature_map import Array, FeatureMap
from ..template.template import Template
from .block import Block

if TYPE_CHECKING:
    from torch.nn import Module
else:
    Module = Any

NOTHING = "nothing"


class Nothing(Block):
    """y = x, as one Identity: no reader of the part's output changes, and every runtime leaves it out."""

    name = NOTHING
    title = "Nothing"
    paper = ""
    reference = "torch.nn.Identity"
    formula = "y = x"
    untrained = "the model goes on without what stood there"

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return {}

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        return t.op("Identity", t.x)

    def module(self, feature: FeatureMap) -> Module:
        from torch import nn

        return nn.Identity()
