"""The expressions of detector patterns: what tensor each one stands for, and how it is matched.

An expression stands for one tensor. The same Python object used twice stands for the same tensor twice, so that a graph
with branches is written as it is drawn:

    x = Value()
    y = Part("cv1", "Conv", x)
    bottleneck = Op("Add", x, Part("cv2", "Conv", y))

Operators are named as ONNX names them; quantised and fused ones count as what they compute, and weights, sizes and
quantisation parameters are no operands (graph_view.py).

Each class has ``match``, all ways in which it stands for a tensor, and ``possible``, a necessary condition that looks
only at the operators a few nodes upstream: whatever ``match`` accepts, ``possible`` accepts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import permutations
from typing import Any, NamedTuple, Protocol, TypeAlias

from .block import RecognisedBlock
from .graph_view import View
from .halves import HALVING, ChannelHalf
from .strides import Strides
from .surroundings import Surroundings

EITHER_WAY = frozenset({"Add", "Mul", "Max", "Min"})
"""operators whose two operands may be in any order"""
_LONGEST_CHAIN = 64
"""links"""
_LARGEST_PATH = 500
"""nodes of a token path"""

Types: TypeAlias = str | Sequence[str]
Condition: TypeAlias = Callable[[View, int], bool]
Test: TypeAlias = Callable[[RecognisedBlock], bool]
Step: TypeAlias = "Callable[[Expression, str], Expression]"
Alternatives: TypeAlias = tuple[Any, ...]
"""what ``match`` has to try; empty where an expression is impossible"""
Entry: TypeAlias = "tuple[Expression, Entry | None]"
"""what has to enter a part, in a pattern that may be a part itself"""

_AS_IT_IS: Alternatives = (None,)


class State(NamedTuple):
    """A partial match: which tensor each expression stands for, the nodes taken so far, the parts found."""

    bound: Mapping[Expression, str] = {}
    nodes: frozenset[int] = frozenset()
    parts: tuple[tuple[str, RecognisedBlock], ...] = ()

    def take(self, nodes: Set[int]) -> State:
        """The same with more nodes."""
        return State(self.bound, self.nodes | nodes, self.parts)


States: TypeAlias = Sequence[State]


class Search(Protocol):
    """What expressions ask of the matcher. ``number`` is that of a tensor's surroundings (surroundings.py)."""

    view: View
    strides: Strides
    halves: dict[str, ChannelHalf]
    surroundings: Surroundings

    def solve(self, expression: Expression, tensor: str, state: State) -> States:
        """All ways in which an expression can stand for a tensor, after what the state has bound already."""

    def blocks(self, types: Sequence[str], tensor: str) -> Iterable[RecognisedBlock]:
        """The blocks of these types that end at a tensor."""

    def graphs(self, types: Sequence[str]) -> Iterable[Expression]:
        """The expressions of all patterns of these types."""

    def alternatives(self, expression: Expression, number: int, entry: Entry | None) -> Alternatives:
        """``expression.possible``, remembered."""


class Expression(ABC):
    """What stands for one tensor."""

    operators: frozenset[str] | None = None
    """those that may produce the tensor; None: any"""

    def possible(self, search: Search, number: int, entry: Entry | None) -> Alternatives:
        """What ``match`` has to try at the tensors with these surroundings; empty if it cannot match there.

        Asked only where one of ``operators`` produces the tensor.
        """
        return _AS_IT_IS

    @abstractmethod
    def match(self, search: Search, tensor: str, state: State, alternatives: Alternatives) -> States:
        """All ways in which the expression stands for a tensor."""


class Value(Expression):
    """Any tensor: what enters a pattern. ``where`` looks at it."""

    def __init__(self, where: Callable[[View, str], bool] | None = None) -> None:
        self.where = where

    def possible(self, search: Search, number: int, entry: Entry | None) -> Alternatives:
        if entry is None or search.surroundings[number][1] is None:
            return _AS_IT_IS
        return search.alternatives(entry[0], number, entry[1])

    def match(self, search: Search, tensor: str, state: State, alternatives: Alternatives) -> States:
        return (state,) if self.where is None or self.where(search.view, tensor) else ()


class Op(Expression):
    """The output of one node of one of these operators.

    Its operands match in order (in any order for two of Add, Mul, Max and Min), all of them; with ``first`` only the
    first is looked at. The last operand can be an Each or a Rest, which takes the others. ``where`` looks at the node.
    """

    def __init__(
        self, types: Types, *operands: Expression | Rest, first: bool = False, where: Condition | None = None
    ) -> None:
        self.operators = group_of(types)
        self.operands = tuple(operand for operand in operands if isinstance(operand, Expression))
        last = operands[-1] if operands else None
        self.rest = last if isinstance(last, Rest) else Rest() if first else None
        self.where = where
        # chains last, when the other operands have bound where they begin
        places = sorted(range(len(self.operands)), key=lambda place: isinstance(self.operands[place], Chain))
        in_order = tuple((self.operands[place], place) for place in places)
        turned = tuple((operand, 1 - place) for operand, place in in_order)
        self._orders = (in_order, turned) if len(places) == 2 and EITHER_WAY & self.operators else (in_order,)

    def possible(self, search: Search, number: int, entry: Entry | None) -> Alternatives:
        _, values = search.surroundings[number]
        if values is None:
            return self._orders
        count = len(self.operands)
        if len(values) < count + self.rest.least if self.rest is not None else len(values) != count:
            return ()
        found = []
        for order in self._orders if len(values) == 2 else self._orders[:1]:
            for operand, place in order:
                if not search.alternatives(operand, values[place], entry):
                    break
            else:
                found.append(order)
        return tuple(found)

    def match(self, search: Search, tensor: str, state: State, alternatives: Alternatives) -> States:
        node_index = search.view.producer(tensor)
        if node_index is None or (self.where is not None and not self.where(search.view, node_index)):
            return ()
        values, taken = search.view.inputs(node_index), state.take({node_index})
        found: list[State] = []
        for order in alternatives:
            states: States = (taken,)
            for operand, place in order:
                states = [inner for outer in states for inner in search.solve(operand, values[place], outer)]
            found += states
        if self.rest is None:
            return found
        return [inner for outer in found for inner in self.rest.match(search, values[len(self.operands) :], outer)]


class OneOf(Expression):
    """Any of several forms."""

    def __init__(self, *choices: Expression) -> None:
        self.choices = choices
        operators = [choice.operators for choice in choices]
        self.operators = None if None in operators else frozenset[str]().union(*filter(None, operators))
        self._by_operator: dict[str, list[Expression]] = {}

    def possible(self, search: Search, number: int, entry: Entry | None) -> Alternatives:
        op, _ = search.surroundings[number]
        if op not in self._by_operator:
            self._by_operator[op] = [c for c in self.choices if c.operators is None or op in c.operators]
        return tuple([choice for choice in self._by_operator[op] if search.alternatives(choice, number, entry)])

    def match(self, search: Search, tensor: str, state: State, alternatives: Alternatives) -> States:
        return [inner for choice in alternatives for inner in search.solve(choice, tensor, state)]


class Part(Expression):
    """The output of a block of one of these types, which reads ``source``; it becomes a part of that name.

    ``where`` looks at the block, with one condition or several: ``where=lambda cv: cv.facts["kernel"] == (1, 1)``.
    """

    def __init__(self, name: str, types: Types, source: Expression, where: Test | Sequence[Test] = ()) -> None:
        self.name = name
        self.types = (types,) if isinstance(types, str) else tuple(types)
        self.source = source
        self.where = (where,) if callable(where) else tuple(where)

    def possible(self, search: Search, number: int, entry: Entry | None) -> Alternatives:
        repeated = entry
        while repeated is not None and repeated[0] is not self.source:
            repeated = repeated[1]
        inner = (self.source, entry if repeated is None else None)  # a pattern can be a part of itself
        return tuple([graph for graph in search.graphs(self.types) if search.alternatives(graph, number, inner)])

    def match(self, search: Search, tensor: str, state: State, alternatives: Alternatives) -> States:
        states: list[State] = []
        for block in search.blocks(self.types, tensor):
            if not state.nodes.isdisjoint(block.nodes) or len(block.entries) != 1:
                continue
            if all(holds(block) for holds in self.where):
                parts = (*state.parts, (self.name, block))
                inner = State(state.bound, state.nodes | block.nodes, parts)
                states += search.solve(self.source, block.entries[0], inner)
        return states


class Half(Expression):
    """The first (0) or second (1) half of a tensor's channels, by Split or by Slice."""

    operators = HALVING

    def __init__(self, source: Expression, index: int) -> None:
        self.source = source
        self.index = index

    def match(self, search: Search, tensor: str, state: State, alternatives: Alternatives) -> States:
        half = search.halves.get(tensor)
        if half is None or half.which != self.index:
            return ()
        return search.solve(self.source, half.source, state.take(half.nodes))


class TokenPath(Expression):
    """A tensor computed off the image plane (on tokens) from nothing but ``source``, which is a feature map.

    ``contains`` names operators of which each group has to occur at least once; ``ends`` those that may produce it;
    ``beside`` the other maps that it is computed from, if it is from several; ``where`` looks at the nodes.
    """

    def __init__(
        self,
        source: Expression,
        contains: Iterable[Types] = (),
        ends: Types = (),
        beside: Sequence[Expression] = (),
        where: Callable[[View, Set[int]], bool] | None = None,
    ) -> None:
        self.sources = (source, *beside)
        self.where = where
        self.contains = [group_of(group) for group in contains]
        self.operators = group_of(ends) or None

    def match(self, search: Search, tensor: str, state: State, alternatives: Alternatives) -> States:
        path = self._path(search, tensor)
        if path is None:
            return ()
        nodes, maps = path
        kinds = {search.view.op(node_index) for node_index in nodes}
        if not all(kinds & group for group in self.contains):
            return ()
        if self.where is not None and not self.where(search.view, nodes):
            return ()
        found: list[State] = []
        for order in permutations(maps):
            states: States = (state.take(nodes),)
            for source, name in zip(self.sources, order, strict=True):
                states = [inner for outer in states for inner in search.solve(source, name, outer)]
            found += states
        return found

    def _path(self, search: Search, tensor: str) -> tuple[set[int], list[str]] | None:
        """The nodes between a tensor and the feature maps that it is computed from, and these maps."""
        view, nodes, sources, pending = search.view, set[int](), dict[str, None](), [tensor]
        while pending:
            name = pending.pop()
            node_index = view.producer(name)
            if name != tensor and search.strides.is_in(name):
                sources[name] = None
            elif node_index is None or node_index not in view.active:
                return None
            elif node_index not in nodes:
                nodes.add(node_index)
                pending += view.inputs(node_index)
            if len(sources) > len(self.sources) or len(nodes) > _LARGEST_PATH:
                return None
        return (nodes, list(sources)) if len(sources) == len(self.sources) else None


class Chain(Expression):
    """The end of a chain of ``least`` or more links after ``source``; ``step(previous, name)`` gives a tensor's link.

    ``name`` is the prefix that the parts of the links get: "m.0", "m.1" and so on.
    """

    def __init__(self, name: str, step: Step, source: Expression, least: int = 1) -> None:
        self.name = name
        self.step = step
        self.source = source
        self.least = least
        self._links: dict[int, tuple[Value, Expression]] = {}

    def possible(self, search: Search, number: int, entry: Entry | None) -> Alternatives:
        _, link = self._link(0)
        return search.alternatives(link, number, None) or (
            search.alternatives(self.source, number, entry) if not self.least else ()
        )

    def match(self, search: Search, tensor: str, state: State, alternatives: Alternatives) -> States:
        return self._extend(search, tensor, state, 0)

    def _extend(self, search: Search, tensor: str, state: State, links: int) -> States:
        """From the end of the chain upstream; the links get their numbers when its beginning is found."""
        states: list[State] = []
        if links >= self.least:
            for inner in search.solve(self.source, tensor, state):
                parts = tuple((self._numbered(name, links), part) for name, part in inner.parts)
                states.append(inner._replace(parts=parts))
        if links < _LONGEST_CHAIN:
            previous, link = self._link(links)
            for inner in search.solve(link, tensor, state):
                states += self._extend(search, inner.bound[previous], inner, links + 1)
        return states

    def _link(self, links: int) -> tuple[Value, Expression]:
        """What stands before a link, and the link, of which so many are downstream."""
        if links not in self._links:
            previous = Value()
            self._links.setdefault(links, (previous, self.step(previous, f"{self.name}.~{links}")))
        return self._links[links]

    def _numbered(self, name: str, links: int) -> str:
        """A part's name with its number counted from the beginning: links are found from the end."""
        prefix = f"{self.name}.~"
        if not name.startswith(prefix):
            return name
        number, dot, inner = name.removeprefix(prefix).partition(".")
        return f"{self.name}.{links - 1 - int(number)}{dot}{inner}"


class Rest:
    """Any further operands, as the last one."""

    least = 0

    def match(self, search: Search, values: Sequence[str], state: State) -> States:
        """All ways in which it stands for these operands."""
        return (state,)


class Each(Rest):
    """All tensors along a chain as the last operands of a concatenation; ``start`` is upstream of the first link."""

    def __init__(self, name: str, step: Step, start: Expression, least: int = 1) -> None:
        self.name = name
        self.step = step
        self.start = start
        self.least = least
        self._links: dict[int, Expression] = {}

    def match(self, search: Search, values: Sequence[str], state: State) -> States:
        states, link = [state], self.start
        for number, value in enumerate(values):
            if number not in self._links:
                self._links.setdefault(number, self.step(link, f"{self.name}.{number}"))
            link = self._links[number]
            states = [inner for outer in states for inner in search.solve(link, value, outer)]
            if not states:
                break
        return states


def group_of(types: Types) -> frozenset[str]:
    """A name or several as a set."""
    return frozenset([types] if isinstance(types, str) else types)
