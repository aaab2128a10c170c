"""The rules, one subject a file. A rule is declared where its check is written; RULES holds them all."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from ..rule import Rule
from . import (
    attention,
    attributes,
    constants,
    dla,
    functions,
    modelfile,
    operators,
    plugins,
    precision,
    quantisation,
    resizing,
    shapes,
)

_MODULES: Sequence[ModuleType] = (
    *(modelfile, operators, plugins, functions, attributes, attention, resizing, quantisation),
    *(constants, shapes, precision, dla),
)
RULES: Sequence[Rule] = tuple(v for module in _MODULES for v in vars(module).values() if isinstance(v, Rule))
"""Every rule, in the order in which findings are listed."""
