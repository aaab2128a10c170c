"""Resolver: what selectors point at in one model.

A selector names targets (tensors, nodes, modules, blocks); a target has a tensor that leaves it, tensors that enter
it, and nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from ..errors import SelectorError, option
from ..messages import closest, listed
from .blocks import BlockFinder, Scope
from .borders import Borders, Target
from .branches import Consumer, OutputConsumer, of_nodes
from .context import Context, tensor_selectors
from .modules import PathFinder
from .nested_names import whereabouts
from .parser import Block, Inside, Named, Operator, Role, Selector, Word, parse
from .refusals import refusal
from .text import Text


@dataclass(frozen=True)
class Place:
    """A tensor that a selector points at, and the path and type of the module or block that it leaves or enters."""

    tensor: str
    path: str | None = None
    type: str | None = None
    written: Text | None = field(default=None, compare=False)
    """the part of a selector that names it"""

    def described(self, position: str = "after") -> str:
        """How messages call it."""
        verb = "leaves" if position == "after" else "enters"
        return repr(self.tensor) if self.path is None else f"{self.tensor!r}, which {verb} {self.path},"


class Resolver:
    """Finds what selectors point at in one model."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._index = context.index
        self.borders = Borders(context)
        self._paths = PathFinder(context, context.tree.modules, self.borders.leaving)
        self._blocks = BlockFinder(context)

    # ------------------------------------------------------------------ the three things to ask for

    def resolve(self, selector: str) -> list[Place]:
        """The places after what a selector names, in the order of the model, each tensor once. SelectorError if
        there are none.
        """
        places: dict[str, Place] = {}
        for part in parse(selector):
            for place in self._after(self._targets(part)):
                places.setdefault(place.tensor, place)
        return sorted(places.values(), key=lambda place: self._index.producer.get(place.tensor, -1))

    def resolve_before(self, selector: str) -> list[tuple[Place, set[int]]]:
        """The places before what a selector names, each with the indexes of the nodes in it that read the tensor.
        SelectorError if there are none.
        """
        found: dict[tuple[str, frozenset[int]], tuple[Place, set[int]]] = {}
        for part in parse(selector):
            for place, nodes in self._before(self._targets(part)):
                found.setdefault((place.tensor, frozenset(nodes)), (place, nodes))
        return sorted(found.values(), key=lambda item: min(item[1]))

    def resolve_consumers(self, selector: str) -> set[Consumer]:
        """What a selector names and can read a tensor: nodes, and outputs of the model."""
        found = set[Consumer]()
        for part in parse(selector):
            if isinstance(part, Role):
                found |= of_nodes(self._blocks.region(part))
                continue
            for target in self._targets(part):
                if target.tensor is None:
                    found |= of_nodes(self.borders.nodes(target))
                elif target.is_output:
                    found.add(OutputConsumer(target.tensor))
                else:
                    raise target.written.error(
                        f"{target.label} reads nothing; consumers are modules, blocks, node:NAME, op:TYPE and "
                        "output:NAME"
                    )
        return found

    # ------------------------------------------------------------------ targets

    def _targets(self, part: Selector) -> list[Target]:
        if isinstance(part, Named):
            return [{"node": self._node, "output": self._output, "tensor": self._tensor}[part.kind](part.name)]
        if isinstance(part, Role):
            return [Target(f"the tensor {t!r}", part.name, tensor=t) for t in self._blocks.role(part)]
        if isinstance(part, Operator):
            return self._operators(part)
        if isinstance(part, Inside):
            return self._inner(part)
        return self._word(part)

    def _output(self, written: Text) -> Target:
        name, outputs = written.text, self._index.outputs
        if name not in outputs:
            sentence = f"the model has no output {name!r}; its outputs are {listed(outputs)}"
            raise written.error(sentence, (f"output:{output}" for output in outputs))
        return Target(f"the output {name!r}", written, tensor=name, is_output=True)

    def _tensor(self, written: Text) -> Target:
        index, name = self._index, written.text
        if name in index.producer or name in index.inputs or name in index.initializers:
            return Target(f"the tensor {name!r}", written, tensor=name)
        near = {other: other for other in closest(name, [*index.inputs, *index.producer])}
        hint = whereabouts(self._context, name, of_node=False) or self._nearest(near)
        raise written.error(f"the model has no tensor {name!r}{hint}", (f"tensor:{other}" for other in near))

    def _node(self, written: Text) -> Target:
        index, name = self._index, written.text
        nodes = index.node_names.get(name, [])
        if not nodes:
            same = {other: index.node_names[other][0] for other in closest(name, index.node_names)}
            near = {other: next(iter(index.nodes[node_index].output), "") for other, node_index in same.items()}
            hint = whereabouts(self._context, name, of_node=True) or self._nearest(near)
            raise written.error(f"the model has no node {name!r}{hint}", (f"node:{other}" for other in near))
        if len(nodes) > 1:
            outputs = tensor_selectors(output for node_index in nodes for output in index.nodes[node_index].output)
            one = self._context.listed(outputs)
            raise written.error(f"{len(nodes)} nodes are called {name!r}; name one by its tensor: {one}", outputs)
        return Target(f"the node {name!r}", written, node_index=nodes[0])

    def _nearest(self, near: dict[str, str]) -> str:
        return f"; the nearest are {self._context.listed(near)}" if near else ""

    def _operators(self, part: Operator, scope: Scope | None = None) -> list[Target]:
        return [
            Target(f"the node {self._index.label(node_index)!r}", part.type, node_index=node_index)
            for node_index in self._blocks.operators(part, scope)
        ]

    def _word(self, word: Word) -> list[Target]:
        written, block, modules = word.path.written, word.block, self._context.tree.modules
        if paths := self._paths.matches(word.path):
            return [Target(f"the module {modules[path].display!r}", written, path=path) for path in paths]
        typed = block is not None and self._blocks.is_type(block.type.text)
        if block is not None and (typed or block.type.text[0].isupper()):
            if word.problem and typed:
                raise word.problem
            near = self._paths.nearest(word.path, cutoff=0.7) if not typed else {}
            return [Target(label, written, block=found) for label, found in self._blocks.find(block, None, near)]
        if labelled := self._blocks.labelled(word.path):
            return [Target(label, written, block=found) for label, found in labelled]
        self._no_match(word)

    def _no_match(self, word: Word) -> NoReturn:
        written = word.path.written
        sentence = f"no module of the model matches {written.text!r}"
        if word.block and (other := self._blocks.type_like(word.block.type.text)):
            raise word.block.type.error(f"{sentence}; the type of block is called {other}", [other])
        near = self._paths.nearest(word.path)
        hint = f"the nearest are {self._context.listed(near)}" if near else self._without_paths()
        raise written.part(self._paths.known(word.path)).error(f"{sentence}; {hint}", near)

    def _without_paths(self) -> str:
        if types := self._blocks.counted():
            return f"its nodes carry no module paths, but it has the blocks {listed(types)}"
        return "its nodes carry no module paths, so name a tensor: tensor:NAME"

    def _inner(self, part: Inside) -> list[Target]:
        """Blocks or nodes inside of each of the scopes; indices count within one scope."""
        if part.scope is None:
            return self._within(part.what, None)
        found: list[Target] = []
        missing: SelectorError | None = None
        for scope in self._targets(part.scope):
            try:
                found += self._within(part.what, Scope(scope.label, self.borders.nodes(scope)))
            except SelectorError as error:  # several scopes, such as those of a glob: some may be without
                missing = missing or error
        if missing and not found:
            raise missing
        return found

    def _within(self, what: Block | Operator, scope: Scope | None) -> list[Target]:
        if isinstance(what, Operator):
            return self._operators(what, scope)
        return [Target(label, what.type, block=block) for label, block in self._blocks.find(what, scope)]

    # ------------------------------------------------------------------ the places after and before targets

    def _after(self, targets: Sequence[Target]) -> Iterator[Place]:
        if len(targets) == 1:
            yield self._place(targets[0], self._only(self.borders.outgoing(targets[0]), targets[0], "leave"))
            return
        outgoing = [(target, self.borders.outgoing(target)) for target in targets]
        places = [self._place(target, tensors[0]) for target, tensors in outgoing if len(tensors) == 1]
        maps = [place for place in places if self._context.is_map(place.tensor)]
        if not maps:
            self._no_map(targets, "leaves", places)
        yield from maps

    def _before(self, targets: Sequence[Target]) -> Iterator[tuple[Place, set[int]]]:
        found, others = [], []
        for target in targets:
            entering, nodes = self.borders.entering(target)
            if len(targets) == 1:
                entering = [self._only(entering, target, "enter")]
            if len(entering) != 1:
                continue
            place = self._place(target, entering[0])
            if len(targets) > 1 and not self._context.is_map(place.tensor):
                others.append(place)
                continue
            if target.node_index is not None:
                place = replace(place, path=self._context.tree.of_node[target.node_index] or None)
            found.append((place, nodes & set(self._index.consumers.get(place.tensor, ()))))
        if not found:
            self._no_map(targets, "enters", others)
        yield from found

    def _no_map(self, targets: Sequence[Target], verb: str, places: Sequence[Place]) -> NoReturn:
        written = targets[0].written
        what = "modules match" if targets[0].path is not None else "places match"
        reasons = (refusal(self._context, place.tensor, place.described()) for place in places)
        reason = next((f"; the first: {error.message}" for error in reasons if error), "")
        raise written.error(
            f"{len(targets)} {what} {written.text!r}, and no image-like tensor {verb} any of them{reason}"
        )

    def _place(self, target: Target, tensor: str) -> Place:
        block = target.block
        if block is None:
            return Place(tensor, target.path, written=target.written)
        path = block.path if block.path in self._context.tree.modules else None
        return Place(tensor, path, block.type, target.written)

    def _only(self, tensors: Sequence[str], target: Target, verb: str) -> str:
        if len(tensors) == 1:
            return tensors[0]
        if not tensors:
            raise target.written.error(f"no tensor {verb}s {target.label}")
        choices, ending = tensor_selectors(tensors), ""
        if verb == "enter":
            consumers = option("consumers", target.written.text)
            ending = f" with {option('after')}, and {consumers} for its consumers there"
        sentence = f"{len(tensors)} tensors {verb} {target.label}; name one{ending}: {self._context.listed(choices)}"
        raise target.written.error(sentence, choices)
