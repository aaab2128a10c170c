"""The matcher: finds the blocks that end at a tensor. How an expression matches, its class knows (expressions.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from .block import RecognisedBlock
from .expressions import Alternatives, Entry, Expression, State, States
from .graph_view import View
from .halves import find_halves
from .pattern import Pattern
from .strides import Strides
from .surroundings import Surroundings

_LONGEST_ACTIVATION = 16
"""nodes"""
_ELEMENTWISE = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "Clip", "BatchNormalization", "Sigmoid"}
    | {"HardSigmoid", "HardSwish", "Swish", "Gelu", "Mish", "Tanh", "Softplus", "Softsign", "Erf", "Exp", "Log", "Add"}
    | {"Mul", "Div", "Neg", "Abs", "Reciprocal", "Pow", "Max", "Min", "Greater", "GreaterOrEqual", "Where"}
)


_Place: TypeAlias = "int | tuple[int, Entry]"
"""the number of a tensor's surroundings, and what has to enter the part that ends there"""


class Matcher:
    """Matches declared patterns against one graph. What ends at a tensor is found once.

    Parameters
    ----------
    view, strides:
        The graph, and which of its tensors are feature maps.
    patterns:
        What to look for; ``Part`` names them by their types.
    """

    def __init__(self, view: View, strides: Strides, patterns: Sequence[Pattern]) -> None:
        self.view = view
        self.strides = strides
        self._patterns: dict[str, list[Pattern]] = {}
        for pattern in patterns:
            self._patterns.setdefault(pattern.name, []).append(pattern)
        self._alone = [pattern for same in self._patterns.values() for pattern in same if pattern.alone]
        self.surroundings = Surroundings(view)
        self.halves = find_halves(view)
        self._possible: dict[int, list[Pattern]] = {}
        """number of surroundings -> the patterns that can end there"""
        self._alternatives: defaultdict[Expression, dict[_Place, Alternatives]] = defaultdict(dict)
        self._found: defaultdict[int, dict[str, tuple[RecognisedBlock, ...]]] = defaultdict(dict)
        """id of a pattern -> what was found, by tensor"""
        self._matches: defaultdict[Expression, dict[str, tuple[RecognisedBlock, ...]]] = defaultdict(dict)
        self._facts: dict[tuple[object, frozenset[int]], Mapping[str, object]] = {}

    def ending_at(self, root: str) -> Iterator[RecognisedBlock]:
        """Every block that can stand alone and ends at a tensor."""
        number = self.surroundings.number(root)
        possible = self._possible.get(number)
        if possible is None:
            possible = [pattern for pattern in self._alone if self.alternatives(pattern.graph, number, None)]
            self._possible[number] = possible
        for pattern in possible:
            yield from self._blocks(pattern, root)

    def outermost(self) -> list[RecognisedBlock]:
        """The largest blocks that do not overlap and produce a feature map, in the order of the graph."""
        view, taken, chosen = self.view, set[int](), []
        maps = [name for p in view.order for name in view.outputs(p) if self.strides.is_in(name)]
        found = [block for name in maps for block in self.ending_at(name)]
        for block in sorted(found, key=lambda block: -len(block.nodes)):  # stable: earlier patterns and nodes first
            if taken.isdisjoint(block.nodes):
                taken |= block.nodes
                chosen.append(block)
        return sorted(chosen, key=lambda block: max(view.place[p] for p in block.nodes))

    # ------------------------------------------------------------------ what expressions ask (expressions.Search)

    def solve(self, expression: Expression, tensor: str, state: State) -> States:
        """All ways in which an expression can stand for a tensor, after what the state has bound already."""
        bound = state.bound.get(expression)
        if bound is not None:
            return (state,) if bound == tensor else ()
        alternatives = self.alternatives(expression, self.surroundings.number(tensor), None)
        if not alternatives:
            return ()
        here = State({**state.bound, expression: tensor}, state.nodes, state.parts)
        return expression.match(self, tensor, here, alternatives)

    def blocks(self, types: Sequence[str], tensor: str) -> Iterator[RecognisedBlock]:
        """The blocks of these types that end at a tensor."""
        for pattern in self._of_types(types):
            yield from self._blocks(pattern, tensor)

    def graphs(self, types: Sequence[str]) -> Iterator[Expression]:
        """The expressions of all patterns of these types."""
        return (pattern.graph for pattern in self._of_types(types))

    def alternatives(self, expression: Expression, number: int, entry: Entry | None) -> Alternatives:
        """``expression.possible``, remembered."""
        operators = expression.operators
        if operators is not None and self.surroundings[number][0] not in operators:
            return ()
        known, place = self._alternatives[expression], number if entry is None else (number, entry)
        found = known.get(place)
        if found is None:
            known[place] = (expression,)  # of a pattern that begins with itself: not known to be impossible
            found = known[place] = expression.possible(self, number, entry)
        return found

    # ------------------------------------------------------------------ blocks

    def _of_types(self, types: Sequence[str]) -> Iterator[Pattern]:
        return (pattern for name in types for pattern in self._patterns.get(name, ()))

    def _blocks(self, pattern: Pattern, root: str) -> tuple[RecognisedBlock, ...]:
        known = self._found[id(pattern)]
        if root not in known:
            known[root] = ()  # a pattern does not begin with itself
            matches = self._matching(pattern.graph, root)
            if matches:  # mostly there is none
                found: dict[frozenset[int], RecognisedBlock] = {}
                for match in matches:
                    if match.nodes not in found and (block := self._block(pattern, match)) is not None:
                        found[match.nodes] = block
                known[root] = tuple(found.values())
        return known[root]

    def _matching(self, graph: Expression, root: str) -> tuple[RecognisedBlock, ...]:
        """What an expression matches, whichever pattern it is: a convolution is a Conv or a DWConv, by its facts."""
        known = self._matches[graph]
        if root not in known:
            known[root] = ()
            states = [state for state in self.solve(graph, root, State()) if self._is_closed(state.nodes, root)]
            if states:  # mostly there is none
                distinct = {(s.nodes, tuple((name, id(part)) for name, part in s.parts)): s for s in states}
                known[root] = tuple(self._match(state, root) for state in distinct.values())
        return known[root]

    def _is_closed(self, nodes: frozenset[int], root: str) -> bool:
        """Whether every value inside a match, its output apart, is consumed only by matched nodes."""
        view = self.view
        for node_index in nodes:
            for name in view.outputs(node_index):
                if name != root:
                    consumers = view.consumers(name)
                    if len(consumers) > len(nodes) or view.is_output(name) or not nodes.issuperset(consumers):
                        return False
        return True

    def _match(self, state: State, root: str) -> RecognisedBlock:
        view, nodes = self.view, state.nodes
        produced = {name for node_index in nodes for name in view.outputs(node_index)}
        entries = dict.fromkeys(name for p in sorted(nodes) for name in view.inputs(p) if name not in produced)
        parts = tuple(sorted(state.parts, key=lambda part: (max(part[1].nodes), part[0])))
        return RecognisedBlock("", (), tuple(entries), view.outlet(root), nodes, parts, root=root)

    def _block(self, pattern: Pattern, match: RecognisedBlock) -> RecognisedBlock | None:
        facts = self._facts_of(pattern, match.nodes)
        block = match.of_type(pattern.name, pattern.aliases, facts)
        if pattern.where is not None and not pattern.where(block):
            return None
        return None if pattern.greedy and self._continues(pattern, block) else block

    def _facts_of(self, pattern: Pattern, nodes: frozenset[int]) -> Mapping[str, object]:
        if pattern.facts is None:
            return {}
        key = (pattern.facts, nodes)
        if key not in self._facts:
            self._facts[key] = dict(pattern.facts(self.view, nodes))
        return self._facts[key]

    def _continues(self, pattern: Pattern, block: RecognisedBlock) -> bool:
        """Whether the same pattern also matches further downstream with this match inside it."""
        view, pending, known, seen = self.view, [block.root], {block.root}, set[int]()
        while pending and len(seen) < _LONGEST_ACTIVATION:
            for consumer in view.consumers(pending.pop()):
                if consumer in seen or view.op(consumer) not in _ELEMENTWISE:
                    continue
                if not known.issuperset(view.inputs(consumer)):
                    continue
                seen.add(consumer)
                for name in view.outputs(consumer):
                    possible = self.alternatives(pattern.graph, self.surroundings.number(name), None)
                    if possible and any(longer.nodes > block.nodes for longer in self._blocks(pattern, name)):
                        return True
                    known.add(name)
                    pending.append(name)
        return False
