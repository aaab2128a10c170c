"""The rules: what speaks against a place, one function each, one subject a file; RULES has them in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..objection import Objection, Spot
from . import features, possible, within

Rule: TypeAlias = Callable[[Spot], "Objection | None"]

RULES: Sequence[Rule] = (
    *(possible.too_old, possible.unused, possible.integers, possible.constant),
    *(features.image, features.padded, within.convolution, possible.no_map),
    *(within.function, within.gate, features.tokens, features.scores),
    *(within.longer_sum, within.longer_function, features.predictions, possible.before_quantisation),
)
"""Every rule; what a later one says supposes that those before it have nothing to say."""
