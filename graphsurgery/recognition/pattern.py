"""The language in which detector patterns are declared: expressions over the tensors of a graph, read from the output.

An expression stands for one tensor. The same Python object used twice stands for the same tensor twice, so that a graph
with branches is written as it is drawn:

    x = Value()
    y = Part("cv1", "Conv", x)
    bottleneck = Op("Add", x, Part("cv2", "Conv", y))

Operators are named as ONNX names them; quantised and fused ones count as what they compute, and weights, sizes and
quantisation parameters are no operands (view.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .block import RecognisedBlock
    from .graph_view import View

EITHER_WAY = frozenset({"Add", "Mul", "Max", "Min"})
"""operators whose two operands may be in any order"""

Types: TypeAlias = str | Sequence[str]
Condition: TypeAlias = Callable[["View", int], bool]


class Expression:
    """Stands for one tensor."""


class Value(Expression):
    """Any tensor: what enters a pattern."""


class Op(Expression):
    """The output of one node of one of these operators.

    Its operands match in order (in any order for Add, Mul, Max and Min), all of them; with ``first`` only the first is
    looked at. The last operand can be an Each, which takes the rest. ``where`` looks at the node.
    """

    def __init__(
        self, types: Types, *operands: Expression | Each | Rest, first: bool = False, where: Condition | None = None
    ):
        self.types = frozenset([types] if isinstance(types, str) else types)
        self.operands = tuple(operand for operand in operands if isinstance(operand, Expression))
        """those that stand for one tensor"""
        last = operands[-1] if operands else None
        self.rest = last if isinstance(last, Each | Rest) else None
        self.places = sorted(range(len(self.operands)), key=lambda place: isinstance(self.operands[place], Chain))
        """the order in which they are looked at: chains last, when the others have told where they begin"""
        self.first = first
        self.turns = len(self.operands) == 2 and not self.rest and bool(EITHER_WAY & self.types)
        """whether the two operands may be the other way round"""
        self.where = where


class OneOf(Expression):
    """The first of several forms that matches, or any of them where what is around decides."""

    def __init__(self, *choices: Expression) -> None:
        self.choices = choices


class Part(Expression):
    """The output of a block of one of these types, which reads ``source``; it becomes a part of that name.

    ``where`` looks at the block: ``where=lambda cv: cv.facts["kernel"] == (1, 1)``.
    """

    def __init__(
        self, name: str, types: Types, source: Expression, where: Callable[[RecognisedBlock], bool] | None = None
    ):
        self.name = name
        self.types = (types,) if isinstance(types, str) else tuple(types)
        self.source = source
        self.where = where


class Chain(Expression):
    """The end of a chain of ``least`` or more links behind ``source``; ``step(previous, name)`` gives a tensor's link.

    ``name`` is the prefix that the link's parts get: "m.0", "m.1" and so on.
    """

    def __init__(self, name: str, step: Callable[[Expression, str], Expression], source: Expression, least: int = 1):
        self.name = name
        self.step = step
        self.source = source
        self.least = least


class Each:
    """All tensors along such a chain, as the last operands of a concatenation; ``start`` is in front of the first."""

    def __init__(self, name: str, step: Callable[[Expression, str], Expression], start: Expression, least: int = 1):
        self.name = name
        self.step = step
        self.start = start
        self.least = least


class Rest:
    """Any further operands, as the last one."""


class Half(Expression):
    """The first (0) or second (1) half of a tensor's channels, by Split or by Slice."""

    def __init__(self, source: Expression, index: int) -> None:
        self.source = source
        self.index = index


class TokenPath(Expression):
    """A tensor made outside of the image plane (on tokens) from nothing but ``source``, which is in it.

    ``contains`` names operators of which each group has to occur at least once.
    """

    def __init__(self, source: Expression, contains: Iterable[Types] = (), ends: Types = ()) -> None:
        self.source = source
        self.contains = [frozenset([group] if isinstance(group, str) else group) for group in contains]
        self.ends = frozenset([ends] if isinstance(ends, str) else ends)


def occurring_once(graph: Expression) -> set[Expression]:
    """The expressions in a pattern that can meet only one tensor; none where steps may name any of them again."""
    times: Counter[Expression] = Counter([graph])
    pending = [graph]
    while pending:
        match pending.pop():
            case Op() as op:
                if isinstance(op.rest, Each):
                    return set()
                inner = op.operands
            case OneOf() as one:
                inner = one.choices
            case Part() | Half() | TokenPath() as behind:
                inner = (behind.source,)
            case Value():
                inner = ()
            case _:
                return set()
        pending += [expression for expression in dict.fromkeys(inner) if expression not in times]
        times.update(inner)
    return {expression for expression, count in times.items() if count == 1}


@dataclass(frozen=True)
class Pattern:
    """One kind of block that selectors can name."""

    name: str
    about: str
    """one line: what it is, and whose name it is"""
    graph: Expression
    aliases: tuple[str, ...] = ()
    alone: bool = True
    """whether it is reported outside of other patterns; if not, it is only a part of them"""
    facts: Callable[[View, frozenset[int]], Mapping[str, object]] | None = None
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
    """A kind of detection head, told from the operators behind the image plane."""

    name: str
    about: str
    has: tuple[Types, ...] = ()
    """groups of operators of which each has at least one node"""
    lacks: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The name and the aliases."""
        return self.name, *self.aliases
