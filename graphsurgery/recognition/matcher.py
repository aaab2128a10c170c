"""The matcher: finds the blocks that end at a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import permutations
from typing import NamedTuple

from .found import Found
from .lookahead import EITHER_WAY, Lookahead
from .pattern import Beyond, Chain, Each, Expression, Half, OneOf, Op, Part, Pattern, Rest, Value
from .plane import Plane
from .view import View

_LONGEST = 64  # links of a chain
_MOST_BEYOND = 500  # nodes of a stretch outside of the image plane
_LONGEST_ACTIVATION = 8  # nodes
_ELEMENTWISE = frozenset(
    {
        "Add",
        "Mul",
        "Div",
        "Clip",
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Elu",
        "Celu",
        "Selu",
        "ThresholdedRelu",
        "BatchNormalization",
    }
    | {"Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Gelu", "Mish", "Tanh", "Softplus", "Erf", "Exp", "Log"}
)


class _State(NamedTuple):
    """A partial match: which tensor each expression stands for, the nodes taken so far, the parts found."""

    bound: Mapping[Expression, str]
    nodes: frozenset[int] = frozenset()
    parts: tuple[tuple[str, Found], ...] = ()

    def bind(self, expression: Expression, tensor: str) -> _State:
        return _State({**self.bound, expression: tensor}, self.nodes, self.parts)

    def take(self, *positions: int) -> _State:
        return _State(self.bound, self.nodes.union(positions), self.parts)


class Matcher:
    """Matches declared patterns against one graph. What ends at a tensor is found once."""

    def __init__(self, view: View, plane: Plane, patterns: Sequence[Pattern]) -> None:
        self._view = view
        self._plane = plane
        self._patterns: dict[str, list[Pattern]] = {}
        for pattern in patterns:
            self._patterns.setdefault(pattern.name, []).append(pattern)
        self._memory: dict[tuple[int, str], tuple[Found, ...]] = {}
        self._lookahead = Lookahead(view, self._patterns)
        self._links: dict[tuple[Chain | Each, int], tuple[Expression, Expression]] = {}
        self._starting: dict[int, list[Pattern]] = {}

    @cached_property
    def _alone(self) -> list[Pattern]:
        return [pattern for patterns in self._patterns.values() for pattern in patterns if pattern.alone]

    def ending_at(self, root: str) -> Iterator[Found]:
        """Every block that can stand alone and ends at a tensor."""
        number, possible = self._lookahead.number(root), self._lookahead.possible_at
        if number not in self._starting:
            self._starting[number] = [pattern for pattern in self._alone if possible(pattern.graph, number)]
        for pattern in self._starting[number]:
            yield from self._found(pattern, root)

    def _of_types(self, types: Sequence[str], root: str) -> Iterator[Found]:
        for name in types:
            for pattern in self._patterns.get(name, ()):
                yield from self._found(pattern, root)

    def _found(self, pattern: Pattern, root: str) -> tuple[Found, ...]:
        key = (id(pattern), root)
        if key not in self._memory:
            if not self._lookahead.possible(pattern.graph, root):
                return ()
            self._memory[key] = ()  # a pattern does not begin with itself
            found: dict[frozenset[int], Found] = {}
            for state in self._solve(pattern.graph, root, _State({})):
                if state.nodes not in found and (block := self._block(pattern, root, state)) is not None:
                    found[state.nodes] = block
            self._memory[key] = tuple(found.values())
        return self._memory[key]

    def _block(self, pattern: Pattern, root: str, state: _State) -> Found | None:
        """The match as a block, unless somebody else reads what is inside of it."""
        view, nodes = self._view, state.nodes
        for position in nodes:
            for name in view.outputs(position):
                if name != root and (view.is_output(name) or not nodes.issuperset(view.readers(name))):
                    return None
        made = {name for position in nodes for name in view.outputs(position)}
        entries = dict.fromkeys(name for p in sorted(nodes) for name in view.inputs(p) if name not in made)
        block = Found(
            type=pattern.name,
            aliases=pattern.aliases,
            entries=tuple(entries),
            output=view.outlet(root),
            nodes=nodes,
            parts=tuple(sorted(state.parts, key=lambda part: (max(part[1].nodes), part[0]))),
            facts=dict(pattern.facts(view, nodes)) if pattern.facts else {},
            root=root,
        )
        if pattern.where is not None and not pattern.where(block):
            return None
        return None if pattern.greedy and self._goes_on(pattern, block) else block

    def _goes_on(self, pattern: Pattern, block: Found) -> bool:
        """Whether the same pattern also matches further on with this match inside of it."""
        view, pending, seen = self._view, [block.root], set[int]()
        while pending:
            for reader in view.readers(pending.pop()):
                if reader in seen or view.op(reader) not in _ELEMENTWISE:
                    continue
                seen.add(reader)
                for name in view.outputs(reader):
                    if any(longer.nodes > block.nodes for longer in self._found(pattern, name)):
                        return True
                    if len(seen) < _LONGEST_ACTIVATION:
                        pending.append(name)
        return False

    # ------------------------------------------------------------------ expressions

    def _solve(self, expression: Expression, tensor: str, state: _State) -> Iterator[_State]:
        """All ways in which an expression can stand for a tensor."""
        if expression in state.bound:
            if state.bound[expression] == tensor:
                yield state
            return
        if not self._lookahead.possible(expression, tensor):
            return
        here = state.bind(expression, tensor)
        match expression:
            case Value():
                yield here
            case Op():
                yield from self._op(expression, tensor, here)
            case OneOf():
                for choice in expression.choices:
                    yield from self._solve(choice, tensor, here)
            case Part():
                yield from self._part(expression, tensor, here)
            case Chain():
                yield from self._chain(expression, tensor, here, 0)
            case Half():
                positions = self._half(expression.index, tensor)
                if positions:
                    source = self._view.inputs(positions[-1])[0]
                    yield from self._solve(expression.source, source, here.take(*positions))
            case Beyond():
                yield from self._beyond(expression, tensor, here)

    def _op(self, expression: Op, tensor: str, state: _State) -> Iterator[_State]:
        view, position = self._view, self._view.producer(tensor)
        if position is None or position not in view.active or view.op(position) not in expression.types:
            return
        if expression.where is not None and not expression.where(view, position):
            return
        operands, values, state = expression.operands, view.inputs(position), state.take(position)
        if expression.first:
            values = values[: len(operands)]
        last = operands[-1] if operands else None
        if isinstance(last, Each | Rest):
            fixed = [operand for operand in operands[:-1] if isinstance(operand, Expression)]
            for inner in self._operands(fixed, values[: len(fixed)], state):
                yield from self._each(last, values[len(fixed) :], inner) if isinstance(last, Each) else (inner,)
            return
        fixed = [operand for operand in operands if isinstance(operand, Expression)]
        orders = permutations(values) if EITHER_WAY & expression.types and len(values) == 2 else (values,)
        for order in orders:
            yield from self._operands(fixed, order, state)

    def _operands(self, operands: Sequence[Expression], values: Sequence[str], state: _State) -> Iterator[_State]:
        """Operands against values, one by one; chains last, when the others have told where they begin."""
        if len(operands) != len(values):
            return
        pairs = sorted(zip(operands, values, strict=True), key=lambda pair: isinstance(pair[0], Chain))
        if not all(self._lookahead.possible(operand, value) for operand, value in pairs):
            return

        def solve(rest: Sequence[tuple[Expression, str]], state: _State) -> Iterator[_State]:
            if not rest:
                yield state
                return
            for inner in self._solve(*rest[0], state):
                yield from solve(rest[1:], inner)

        yield from solve(pairs, state)

    def _each(self, each: Each, values: Sequence[str], state: _State) -> Iterator[_State]:
        if len(values) < each.least:
            return
        states, previous = [state], each.start
        for count, value in enumerate(values):
            if (each, count) not in self._links:
                self._links[each, count] = (previous, each.step(previous, f"{each.name}.{count}"))
            _, link = self._links[each, count]
            states = [inner for outer in states for inner in self._solve(link, value, outer)]
            if not states:
                return
            previous = link
        yield from states

    def _part(self, expression: Part, tensor: str, state: _State) -> Iterator[_State]:
        for found in self._of_types(expression.types, tensor):
            if (
                state.nodes.isdisjoint(found.nodes)
                and len(found.entries) == 1
                and (expression.where is None or expression.where(found))
            ):
                parts = (*state.parts, (expression.name, found))
                inner = _State(state.bound, state.nodes | found.nodes, parts)
                yield from self._solve(expression.source, found.entries[0], inner)

    def _chain(self, chain: Chain, tensor: str, state: _State, links: int) -> Iterator[_State]:
        """From the end of a chain backwards; the links get their numbers when its beginning is found."""
        if links >= chain.least:
            for inner in self._solve(chain.source, tensor, state):
                named = ((_numbered(name, chain.name, links), part) for name, part in inner.parts)
                yield inner._replace(parts=tuple(named))
        if links >= _LONGEST:
            return
        if (chain, links) not in self._links:
            source = Value()
            self._links[chain, links] = (source, chain.step(source, f"{chain.name}.~{links}"))
        before, link = self._links[chain, links]
        for inner in self._solve(link, tensor, state):
            yield from self._chain(chain, inner.bound[before], inner, links + 1)

    def _half(self, index: int, tensor: str) -> tuple[int, ...]:
        """Positions of the nodes that take this half of the channels out of a tensor, the one that reads it last."""
        view, position = self._view, self._view.producer(tensor)
        if position is None or position not in view.active or len(view.inputs(position)) != 1:
            return ()
        node = view.index.nodes[position]
        if node.op_type == "Split":
            outputs = view.outputs(position)
            right = len(outputs) == 2 and outputs.index(tensor) == index and self._in_halves(position)
            return (position,) if right and view.integer(position, "axis", 0) in (1, -3) else ()
        if node.op_type == "Slice":
            return (position,) if self._is_half(position, index) else ()
        if node.op_type == "SequenceAt":  # torch's exporter before it has optimised
            split, place = view.producer(view.inputs(position)[0]), view.constant(node.input[1])
            whole = split is not None and view.op(split) == "SplitToSequence" and view.integer(split, "axis", 0) == 1
            return (
                (position, split) if whole and split is not None and place is not None and int(place) == index else ()
            )
        return ()

    def _in_halves(self, position: int) -> bool:
        """Whether the parts of a Split into two have one size."""
        view, node = self._view, self._view.index.nodes[position]
        given = view.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        sizes = view.integers(position, "split") if given is None else tuple(int(size) for size in given.ravel())
        return len(set(sizes)) <= 1

    def _is_half(self, position: int, index: int) -> bool:
        """Whether a Slice takes the first (0) or the second (1) half of the channels: from where another one ends."""
        axes, first, last = self._slice(position)
        if axes not in ((1,), (-3,)) or (first == 0) != (index == 0):
            return False
        if index == 0:
            return True
        view = self._view
        if isinstance(first, int) and isinstance(last, int) and last not in (2 * first, -1) and last < 2**31 - 1:
            return False
        others = (r for r in view.readers(view.inputs(position)[0]) if view.index.nodes[r].op_type == "Slice")
        return any(self._slice(r)[1:] == (0, first) for r in others)

    def _slice(self, position: int) -> tuple[tuple[int, ...], int | str | None, int | str | None]:
        """(axes, start, end) of a Slice along one axis without steps; the name of the tensor where one is computed."""
        view, node = self._view, self._view.index.nodes[position]
        if len(node.input) < 3:  # before opset 10
            starts, ends = view.integers(position, "starts"), view.integers(position, "ends")
            return view.integers(position, "axes"), starts[0] if starts else None, ends[0] if ends else None
        axes = view.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
        steps = view.constant(node.input[4]) if len(node.input) > 4 and node.input[4] else None
        if axes is None or (steps is not None and (steps != 1).any()):
            return (), None, None
        return tuple(int(axis) for axis in axes.ravel()), self._limit(node.input[1]), self._limit(node.input[2])

    def _limit(self, name: str) -> int | str:
        """The value of a limit; its tensor's name where it is computed."""
        value = self._view.constant(name)
        return self._view.root(name) if value is None or not value.size else int(value.ravel()[0])

    def _beyond(self, expression: Beyond, tensor: str, state: _State) -> Iterator[_State]:
        view, plane = self._view, self._plane
        taken: set[int] = set()
        frontier: set[str] = set()
        pending = [tensor]
        while pending:
            name = pending.pop()
            position = view.producer(name)
            if name != tensor and plane.is_in(name):
                frontier.add(name)
            elif position is None or position not in view.active:
                return
            elif position not in taken:
                taken.add(position)
                pending += view.inputs(position)
            if len(frontier) > 1 or len(taken) > _MOST_BEYOND:
                return
        kinds = {view.op(position) for position in taken}
        if frontier and all(kinds & group for group in expression.contains):
            yield from self._solve(expression.source, frontier.pop(), state.take(*taken))


def _numbered(name: str, chain: str, links: int) -> str:
    """A part's name with its number counted from the front: links are found from the back."""
    prefix = f"{chain}.~"
    if not name.startswith(prefix):
        return name
    number, dot, inner = name.removeprefix(prefix).partition(".")
    return f"{chain}.{links - 1 - int(number)}{dot}{inner}"
