"""Recognition: the blocks of a detector, found by structure, and the language in which their patterns are declared."""

from __future__ import annotations

from .block import RecognisedBlock
from .blocktree import BlockTree, recognise
from .graph_view import View
from .pattern import Chain, Each, Expression, Half, HeadPattern, OneOf, Op, Part, Pattern, Rest, TokenPath, Value
from .prediction import Prediction

__all__ = ["BlockTree", "Chain", "Each", "Expression", "Half", "HeadPattern", "OneOf", "Op", "Part", "Pattern"]
__all__ += ["Prediction", "RecognisedBlock", "Rest", "TokenPath", "Value", "View", "recognise"]
