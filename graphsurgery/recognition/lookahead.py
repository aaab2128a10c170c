"""Lookahead: whether the operators behind a tensor leave room for an expression, before the matcher tries it.

Tensors with the same operators around them, a few nodes deep, share one number; large graphs repeat themselves, so that
most of what cannot match is known from one look into a table. The more they do, the deeper the look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from .graph_view import View
from .pattern import Chain, Each, Expression, Half, OneOf, Op, Part, Pattern, TokenPath, Value

HALVING = frozenset({"Split", "Slice", "SequenceAt"})
_DEEP = 3  # nodes behind the one that makes a tensor
_DEEPEST = 7
_REPEATED = 50  # times that a number has to be given, on average, for more depth to be worth its time
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
        self._choices: dict[tuple[OneOf, int], tuple[Expression, ...]] = {}
        self._orders: dict[tuple[Op, int], tuple[int, ...]] = {}
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

    def choices(self, expression: OneOf, tensor: str) -> tuple[Expression, ...]:
        """The forms that may stand for a tensor."""
        key = (expression, self._numbers.get(tensor, _NO_NODE))
        found = self._choices.get(key)
        if found is None:
            found = tuple(choice for choice in expression.choices if self.possible_at(choice, key[1]))
            self._choices[key] = found
        return found

    def orders(self, expression: Op, tensor: str) -> tuple[int, ...]:
        """The orders, 1 or -1 for reversed, in which operands may stand for what the node reads that makes a tensor."""
        key = (expression, self._numbers.get(tensor, _NO_NODE))
        found = self._orders.get(key)
        if found is None:
            _, values = self._surroundings[key[1]]
            assert values is not None, "numbers of the least depth are of no tensor"
            steps = _orders(expression, len(values))
            found = tuple(step for step in steps if self._in_order(expression.operands, values[::step], None))
            self._orders[key] = found
        return found

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
            case TokenPath():
                return not expression.ends or op in expression.ends
        return True

    def _operands(self, expression: Op, values: tuple[int, ...], entry: _Entry | None) -> bool:
        operands, rest = expression.operands, expression.rest
        if rest is not None:
            least = len(operands) + (rest.least if isinstance(rest, Each) else 0)
            return len(values) >= least and self._in_order(operands, values, entry)
        return any(self._in_order(operands, values[::step], entry) for step in _orders(expression, len(values)))

    def _in_order(self, operands: Sequence[Expression], values: tuple[int, ...], entry: _Entry | None) -> bool:
        return all(self.possible_at(operand, value, entry) for operand, value in zip(operands, values, strict=False))

    # ------------------------------------------------------------------ the numbers

    def _numbered(self, view: View) -> dict[str, int]:
        rows = [(view.op(position), view.inputs(position), view.outputs(position)) for position in view.order]
        deeper = {name: self._number((op, None)) for op, _, outputs in rows for name in outputs}
        for depth in range(1, _DEEPEST + 1):
            before, deeper = deeper, {}
            for op, inputs, outputs in rows:
                number = self._number((op, tuple([before.get(name, _NO_NODE) for name in inputs])))
                for name in outputs:
                    deeper[name] = number
            if depth >= _DEEP and len(set(deeper.values())) * _REPEATED > len(deeper):
                break
        return deeper

    def _number(self, surroundings: _Surroundings) -> int:
        number = self._known.get(surroundings)
        if number is None:
            number = self._known[surroundings] = len(self._surroundings)
            self._surroundings.append(surroundings)
        return number


def _orders(expression: Op, count: int) -> tuple[int, ...]:
    """The orders, 1 or -1, in which the operands can stand for so many values."""
    operands = expression.operands
    if count < len(operands) or (count > len(operands) and not expression.first):
        return ()
    return (1, -1) if expression.turns and count == 2 else (1,)
