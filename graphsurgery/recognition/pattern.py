"""The language in which detector patterns are declared: a pattern is a named expression over the tensors of a graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .block import RecognisedBlock
from .expressions import Chain, Each, Expression, Half, OneOf, Op, Part, Rest, TokenPath, Types, Value, group_of
from .graph_view import View
from .prediction import Prediction

__all__ = ["Chain", "Each", "Expression", "Half", "HeadPattern", "OneOf", "Op", "Part", "Pattern", "Rest"]
__all__ += ["TokenPath", "Types", "Value"]


@dataclass(frozen=True)
class Pattern:
    """One kind of block that selectors can name."""

    name: str
    about: str
    """one line: what it is, and whose name it is"""
    graph: Expression
    """the block, written from its output"""
    aliases: tuple[str, ...] = ()
    alone: bool = True
    """whether it is reported outside of other patterns; if not, it is only a part of them"""
    facts: Callable[[View, frozenset[int]], Mapping[str, object]] | None = None
    """what it says of the nodes that it matched"""
    where: Callable[[RecognisedBlock], bool] | None = None
    """a condition on the whole"""
    greedy: bool = False
    """whether a match counts only if it cannot be continued by what is calculated from it alone: a convolution is one
    with its activation
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The name and the aliases."""
        return self.name, *self.aliases


@dataclass(frozen=True)
class HeadPattern:
    """A kind of detection head, recognised by the operators downstream of the image plane."""

    name: str
    about: str
    has: tuple[Types, ...] = ()
    """groups of operators of which each has at least one node"""
    lacks: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    where: Callable[[Prediction], bool] | None = None
    """a condition on what it gives"""

    @property
    def names(self) -> tuple[str, ...]:
        """The name and the aliases."""
        return self.name, *self.aliases

    def fits(self, prediction: Prediction) -> bool:
        """Whether a head that gives this is of this kind."""
        operators = prediction.operators
        known = all(operators & group_of(group) for group in self.has) and operators.isdisjoint(self.lacks)
        return known and (self.where is None or self.where(prediction))


def __getattr__(name: str) -> Any:
    if name != "Beyond":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("Beyond is now called TokenPath", DeprecationWarning, stacklevel=2)
    return TokenPath
