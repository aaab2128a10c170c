"""Lookahead: whether the operators behind a tensor leave room for an expression, before the matcher tries it.

Tensors with the same operators around them, a few nodes deep, share one number; large graphs repeat themselves, so that
most of what cannot match is known from one look into a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from .pattern import Beyond, Chain, Each, Expression, Half, OneOf, Op, Part, Pattern, Rest, Value
from .view import View

EITHER_WAY = frozenset({"Add", "Mul"})
"""operators whose two operands may be in any order"""
HALVING = frozenset({"Split", "Slice", "SequenceAt"})
_DEEP = 4  # nodes
_NO_NODE = 0  # the number of tensors that no node of the network makes

_Surroundings: TypeAlias = tuple[str, tuple[int, ...] | None]
"""an operator, and the numbers of what it reads; None where that was not looked at"""
_Entry: TypeAlias = "tuple[Expression, _Entry | None]"
"""what has to enter a part, in a pattern that may be a part itself"""


class Lookahead:
    """Looks at operators only: what it calls possible may still not match, what it calls impossible never does."""

    def __init__(self, view: View, patterns: Mapping[str, Sequence[Pattern]]) -> None:
        self._patterns = patterns
        self._known: dict[_Surroundings, int] = {}
        self._surroundings: list[_Surroundings] = [("", ())]
        self._verdicts: dict[tuple[Expression, int, _Entry | None], bool] = {}
        self._numbers = self._numbered(view)

    def number(self, tensor: str) -> int:
        """The number of what is around a tensor."""
        return self._numbers.get(tensor, _NO_NODE)

    def possible(self, expression: Expression, tensor: str) -> bool:
        """Whether an expression may stand for a tensor."""
        return self.possible_at(expression, self._numbers.get(tensor, _NO_NODE))

    def possible_at(self, expression: Expression, number: int, entry: _Entry | None = None) -> bool:
        """The same for all tensors of a number, where the entry of the pattern has to be something itself."""
        key = (expression, number, entry)
        verdict = self._verdicts.get(key)
        if verdict is None:
            self._verdicts[key] = False  # a pattern does not begin with itself
            verdict = self._verdicts[key] = self._judge(expression, number, entry)
        return verdict

    def _judge(self, expression: Expression, number: int, entry: _Entry | None) -> bool:
        op, operands = self._surroundings[number]
        match expression:
            case Value():
                return entry is None or operands is None or self.possible_at(entry[0], number, entry[1])
            case Op():
                return op in expression.types and (operands is None or self._operands(expression, operands, entry))
            case OneOf():
                return any(self.possible_at(choice, number, entry) for choice in expression.choices)
            case Part():
                graphs = [pattern.graph for name in expression.types for pattern in self._patterns.get(name, ())]
                return any(self.possible_at(graph, number, (expression.source, entry)) for graph in graphs)
            case Chain():
                link = expression.step(Value(), "")
                return self._judge(link, number, None) or (
                    not expression.least and self._judge(expression.source, number, entry)
                )
            case Half():
                return op in HALVING
            case Beyond():
                return not expression.ends or op in expression.ends
        return True

    def _operands(self, expression: Op, values: tuple[int, ...], entry: _Entry | None) -> bool:
        operands = expression.operands
        fixed = [operand for operand in operands if isinstance(operand, Expression)]
        last = operands[-1] if operands else None
        if isinstance(last, Each | Rest):
            least = len(fixed) + (last.least if isinstance(last, Each) else 0)
            return len(values) >= least and self._in_order(fixed, values, entry)
        if expression.first:
            values = values[: len(operands)]
        if len(values) != len(fixed):
            return False
        turned = EITHER_WAY & expression.types and len(values) == 2
        return self._in_order(fixed, values, entry) or bool(turned and self._in_order(fixed, values[::-1], entry))

    def _in_order(self, operands: Sequence[Expression], values: tuple[int, ...], entry: _Entry | None) -> bool:
        return all(self.possible_at(operand, value, entry) for operand, value in zip(operands, values, strict=False))

    # ------------------------------------------------------------------ the numbers

    def _numbered(self, view: View) -> dict[str, int]:
        deeper: dict[str, int] = {}
        for depth in range(_DEEP):
            before, deeper = deeper, {}
            for position in view.order:
                read = tuple(before.get(name, _NO_NODE) for name in view.inputs(position)) if depth else None
                number = self._number((view.op(position), read))
                for name in view.outputs(position):
                    deeper[name] = number
        return deeper

    def _number(self, surroundings: _Surroundings) -> int:
        number = self._known.setdefault(surroundings, len(self._surroundings))
        if number == len(self._surroundings):
            self._surroundings.append(surroundings)
        return number
