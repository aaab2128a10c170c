"""The matcher: finds the blocks that end at a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from .block import RecognisedBlock
from .graph_view import View
from .halves import Halves
from .lookahead import Lookahead
from .pattern import Chain, Each, Expression, Half, OneOf, Op, Part, Pattern, TokenPath, Value, occurring_once
from .strides import Strides
from .token_paths import made_beyond

_LONGEST = 64  # links of a chain
_LONGEST_ACTIVATION = 16  # nodes
_ELEMENTWISE = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "Clip", "BatchNormalization"}
    | {"Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Gelu", "Mish", "Tanh", "Softplus", "Softsign", "Erf", "Exp"}
    | {
        "Log",
        "Add",
        "Mul",
        "Div",
        "Neg",
        "Abs",
        "Reciprocal",
        "Pow",
        "Max",
        "Min",
        "Greater",
        "GreaterOrEqual",
        "Where",
    }
)


class _State(NamedTuple):
    """A partial match: which tensor each expression stands for, the nodes taken so far, the parts found."""

    once: Set[Expression]
    """those that the whole pattern has once: what they stand for need not be known"""
    bound: Mapping[Expression, str]
    nodes: frozenset[int] = frozenset()
    parts: tuple[tuple[str, RecognisedBlock], ...] = ()

    def take(self, nodes: Set[int]) -> _State:
        return _State(self.once, self.bound, self.nodes | nodes, self.parts)


class _Match(NamedTuple):
    """What an expression that is a whole pattern stands for, whichever pattern it is."""

    nodes: frozenset[int]
    parts: tuple[tuple[str, RecognisedBlock], ...]
    entries: tuple[str, ...]
    output: str


class Matcher:
    """Matches declared patterns against one graph. What ends at a tensor is found once."""

    def __init__(self, view: View, plane: Strides, patterns: Sequence[Pattern]) -> None:
        self._view = view
        self._plane = plane
        self._patterns: dict[str, list[Pattern]] = {}
        for pattern in patterns:
            self._patterns.setdefault(pattern.name, []).append(pattern)
        self._alone = [pattern for same in self._patterns.values() for pattern in same if pattern.alone]
        self._memory: dict[tuple[int, str], tuple[RecognisedBlock, ...]] = {}
        self._matches: dict[tuple[Expression, str], tuple[_Match, ...]] = {}
        self._facts: dict[tuple[object, frozenset[int]], Mapping[str, object]] = {}
        self._once: dict[Expression, Set[Expression]] = {}
        self._lookahead = Lookahead(view, self._patterns)
        self._halves = Halves(view)
        self._links: dict[tuple[Chain | Each, int], tuple[Expression, Expression]] = {}
        self._starting: dict[int, list[Pattern]] = {}

    def ending_at(self, root: str) -> Iterator[RecognisedBlock]:
        """Every block that can stand alone and ends at a tensor."""
        number, possible = self._lookahead.number(root), self._lookahead.possible_at
        if number not in self._starting:
            self._starting[number] = [pattern for pattern in self._alone if possible(pattern.graph, number)]
        for pattern in self._starting[number]:
            yield from self._found(pattern, root)

    def _of_types(self, types: Sequence[str], root: str) -> Iterator[RecognisedBlock]:
        for name in types:
            for pattern in self._patterns.get(name, ()):
                yield from self._found(pattern, root)

    def _found(self, pattern: Pattern, root: str) -> tuple[RecognisedBlock, ...]:
        key = (id(pattern), root)
        if key not in self._memory:
            if not self._lookahead.possible(pattern.graph, root):
                return ()
            self._memory[key] = ()  # a pattern does not begin with itself
            found: dict[frozenset[int], RecognisedBlock] = {}
            for match in self._matching(pattern.graph, root):
                if match.nodes not in found and (block := self._block(pattern, root, match)) is not None:
                    found[match.nodes] = block
            self._memory[key] = tuple(found.values())
        return self._memory[key]

    def _matching(self, graph: Expression, root: str) -> tuple[_Match, ...]:
        """What several patterns may have in common: a convolution is a Conv or a DWConv, by its facts."""
        key = (graph, root)
        if key not in self._matches:
            self._matches[key] = ()
            if graph not in self._once:
                self._once[graph] = occurring_once(graph)
            states = self._solve(graph, root, _State(self._once[graph], {}))
            if len(states) > 1:
                states = list(
                    {(s.nodes, tuple((name, id(part)) for name, part in s.parts)): s for s in states}.values()
                )
            self._matches[key] = tuple(self._match(s, root) for s in states if self._is_closed(s.nodes, root))
        return self._matches[key]

    def _is_closed(self, nodes: frozenset[int], root: str) -> bool:
        """Whether nobody else reads what is inside of a match."""
        view = self._view
        for position in nodes:
            for name in view.outputs(position):
                if name != root:
                    readers = view.readers(name)
                    if len(readers) > len(nodes) or view.is_output(name) or not nodes.issuperset(readers):
                        return False
        return True

    def _match(self, state: _State, root: str) -> _Match:
        view, nodes = self._view, state.nodes
        made = {name for position in nodes for name in view.outputs(position)}
        entries = dict.fromkeys(name for p in sorted(nodes) for name in view.inputs(p) if name not in made)
        parts = sorted(state.parts, key=lambda part: (max(part[1].nodes), part[0]))
        return _Match(nodes, tuple(parts), tuple(entries), view.outlet(root))

    def _block(self, pattern: Pattern, root: str, match: _Match) -> RecognisedBlock | None:
        block = RecognisedBlock(
            type=pattern.name,
            aliases=pattern.aliases,
            entries=match.entries,
            output=match.output,
            nodes=match.nodes,
            parts=match.parts,
            facts=self._told(pattern, match.nodes),
            root=root,
        )
        if pattern.where is not None and not pattern.where(block):
            return None
        return None if pattern.greedy and self._goes_on(pattern, block) else block

    def _told(self, pattern: Pattern, nodes: frozenset[int]) -> Mapping[str, object]:
        """The facts of a match."""
        if pattern.facts is None:
            return {}
        key = (pattern.facts, nodes)
        if key not in self._facts:
            self._facts[key] = dict(pattern.facts(self._view, nodes))
        return self._facts[key]

    def _goes_on(self, pattern: Pattern, block: RecognisedBlock) -> bool:
        """Whether the same pattern also matches further on with this match inside of it."""
        view, pending, known, seen = self._view, [block.root], {block.root}, set[int]()
        while pending and len(seen) < _LONGEST_ACTIVATION:
            for reader in view.readers(pending.pop()):
                if reader in seen or view.op(reader) not in _ELEMENTWISE or not known.issuperset(view.inputs(reader)):
                    continue
                seen.add(reader)
                for name in view.outputs(reader):
                    if any(longer.nodes > block.nodes for longer in self._found(pattern, name)):
                        return True
                    known.add(name)
                    pending.append(name)
        return False

    # ------------------------------------------------------------------ expressions

    def _solve(self, expression: Expression, tensor: str, state: _State) -> Sequence[_State]:
        """All ways in which an expression can stand for a tensor."""
        single = expression in state.once
        if not single:
            bound = state.bound.get(expression)
            if bound is not None:
                return (state,) if bound == tensor else ()
        if not self._lookahead.possible(expression, tensor):
            return ()
        here = state
        if not single:
            here = _State(state.once, {**state.bound, expression: tensor}, state.nodes, state.parts)
        match expression:
            case Op():
                return self._op(expression, tensor, here)
            case OneOf():
                choices = self._lookahead.choices(expression, tensor)
                return [inner for choice in choices for inner in self._solve(choice, tensor, here)]
            case Value():
                return (here,)
            case Part():
                return self._part(expression, tensor, here)
            case Chain():
                return self._chain(expression, tensor, here, 0)
            case Half():
                return self._half(expression, tensor, here)
            case TokenPath():
                return self._beyond(expression, tensor, here)
        return ()

    def _op(self, expression: Op, tensor: str, state: _State) -> Sequence[_State]:
        view, position = self._view, self._view.producer(tensor)
        if position is None or (expression.where is not None and not expression.where(view, position)):
            return ()
        state, values, rest = state.take({position}), view.inputs(position), expression.rest
        if rest is None:
            orders = self._lookahead.orders(expression, tensor)
            return [inner for order in orders for inner in self._operands(expression, values[::order], state)]
        states, count = self._operands(expression, values, state), len(expression.operands)
        if isinstance(rest, Each):
            return [inner for outer in states for inner in self._each(rest, values[count:], outer)]
        return states

    def _operands(self, expression: Op, values: Sequence[str], state: _State) -> Sequence[_State]:
        """Operands against values, one by one."""
        states: Sequence[_State] = (state,)
        for place in expression.places:
            operand, value = expression.operands[place], values[place]
            states = [inner for outer in states for inner in self._solve(operand, value, outer)]
        return states

    def _each(self, each: Each, values: Sequence[str], state: _State) -> Sequence[_State]:
        if len(values) < each.least:
            return ()
        states, previous = [state], each.start
        for count, value in enumerate(values):
            if (each, count) not in self._links:
                self._links[each, count] = (previous, each.step(previous, f"{each.name}.{count}"))
            _, link = self._links[each, count]
            states = [inner for outer in states for inner in self._solve(link, value, outer)]
            if not states:
                break
            previous = link
        return states

    def _part(self, expression: Part, tensor: str, state: _State) -> Sequence[_State]:
        states: list[_State] = []
        for found in self._of_types(expression.types, tensor):
            if (
                state.nodes.isdisjoint(found.nodes)
                and len(found.entries) == 1
                and (expression.where is None or expression.where(found))
            ):
                parts = (*state.parts, (expression.name, found))
                inner = _State(state.once, state.bound, state.nodes | found.nodes, parts)
                states += self._solve(expression.source, found.entries[0], inner)
        return states

    def _chain(self, chain: Chain, tensor: str, state: _State, links: int) -> Sequence[_State]:
        """From the end of a chain backwards; the links get their numbers when its beginning is found."""
        states: list[_State] = []
        if links >= chain.least:
            for inner in self._solve(chain.source, tensor, state):
                named = ((_numbered(name, chain.name, links), part) for name, part in inner.parts)
                states.append(inner._replace(parts=tuple(named)))
        if links >= _LONGEST:
            return states
        if (chain, links) not in self._links:
            source = Value()
            self._links[chain, links] = (source, chain.step(source, f"{chain.name}.~{links}"))
        before, link = self._links[chain, links]
        for inner in self._solve(link, tensor, state):
            states += self._chain(chain, inner.bound[before], inner, links + 1)
        return states

    def _half(self, half: Half, tensor: str, state: _State) -> Sequence[_State]:
        positions = self._halves.taken_by(tensor, half.index)
        if not positions:
            return ()
        source = self._view.inputs(positions[-1])[0]
        return self._solve(half.source, source, state.take(set(positions)))

    def _beyond(self, expression: TokenPath, tensor: str, state: _State) -> Sequence[_State]:
        made = made_beyond(self._view, self._plane, tensor)
        if made is None:
            return ()
        nodes, source = made
        kinds = {self._view.op(position) for position in nodes}
        if not all(kinds & group for group in expression.contains):
            return ()
        return self._solve(expression.source, source, state.take(nodes))


def _numbered(name: str, chain: str, links: int) -> str:
    """A part's name with its number counted from the front: links are found from the back."""
    prefix = f"{chain}.~"
    if not name.startswith(prefix):
        return name
    number, dot, inner = name.removeprefix(prefix).partition(".")
    return f"{chain}.{links - 1 - int(number)}{dot}{inner}"
