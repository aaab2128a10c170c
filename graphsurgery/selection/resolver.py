"""Resolver: what selectors point at in one model.

A selector names targets (tensors, nodes, modules, blocks); a target has a tensor that leaves it, tensors that enter
it, and nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from ..errors import SelectorError
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..graph.shapes import ShapeTable
from ..messages import closest, listed, shape_text
from .blocks import BlockFinder, Scope
from .borders import Edges, Target
from .branches import Consumer, OutputConsumer, of_nodes
from .modules import PathFinder
from .nested_names import whereabouts
from .parser import Inside, Named, Operator, Role, Selector, Word, parse
from .text import Text

if TYPE_CHECKING:
    from ..recognition import BlockTree


@dataclass(frozen=True)
class Place:
    """A tensor that a selector points at, and the path and type of the module or block that it leaves or enters."""

    tensor: str
    path: str | None = None
    type: str | None = None
    written: Text | None = field(default=None, compare=False)
    """the part of a selector that names it"""


class Resolver:
    """Finds what selectors point at in one model."""

    def __init__(
        self,
        index: GraphIndex,
        tree: ModuleTree,
        shapes: ShapeTable,
        *,
        is_map: Callable[[str], bool],
        blocks: Callable[[], BlockTree],
        against: Callable[[Place], str | None],
    ) -> None:
        """``is_map`` says whether a block can stand behind a tensor, ``against`` why none can stand at a place;
        ``blocks`` recognises the model's blocks.
        """
        self._index = index
        self._tree = tree
        self._shapes = shapes
        self._is_map = is_map
        self._against = against
        self.edges = Edges(index, tree, is_map)
        self._paths = PathFinder(tree.modules, self._candidate)
        self._blocks = BlockFinder(index, tree, blocks, self.shaped)

    # ------------------------------------------------------------------ the three things to ask for

    def resolve(self, selector: str) -> list[Place]:
        """The places behind what a selector names, in the order of the model, each tensor once. SelectorError if
        there are none.
        """
        places: dict[str, Place] = {}
        for part in parse(selector):
            for place in self._behind(self._targets(part)):
                places.setdefault(place.tensor, place)
        return sorted(places.values(), key=lambda place: self._index.producer.get(place.tensor, -1))

    def resolve_before(self, selector: str) -> list[tuple[Place, set[int]]]:
        """The places in front of what a selector names, each with the positions of the nodes in it that read the
        tensor. SelectorError if there are none.
        """
        found: dict[tuple[str, frozenset[int]], tuple[Place, set[int]]] = {}
        for part in parse(selector):
            for place, readers in self._in_front(self._targets(part)):
                found.setdefault((place.tensor, frozenset(readers)), (place, readers))
        return sorted(found.values(), key=lambda item: min(item[1]))

    def resolve_consumers(self, selector: str) -> set[Consumer]:
        """What a selector names and can read a tensor: nodes, and outputs of the model."""
        found = set[Consumer]()
        for part in parse(selector):
            if isinstance(part, Role):
                found |= of_nodes(self._blocks.region(part))
                continue
            for target in self._targets(part):
                if target.is_output and target.tensor is not None:
                    found.add(OutputConsumer(target.tensor))
                elif target.tensor is not None:
                    raise target.written.error(
                        f"{target.label} reads nothing; consumers are modules, blocks, node:NAME, op:TYPE and "
                        "output:NAME"
                    )
                else:
                    found |= of_nodes(self.edges.nodes(target))
        return found

    def shaped(self, name: str, tensor: str) -> str:
        """A candidate for a message, with the shape of its tensor where that is known."""
        shape = self._shapes.lookup(tensor)[1] if tensor else None
        return f"{name} {shape_text(shape)}" if shape is not None else name

    # ------------------------------------------------------------------ targets

    def _targets(self, part: Selector) -> list[Target]:
        if isinstance(part, Named):
            return [self._named(part)]
        if isinstance(part, Role):
            return [Target(f"the tensor {t!r}", part.name, tensor=t) for t in self._blocks.role(part)]
        if isinstance(part, Operator):
            return self._operators(part)
        if isinstance(part, Inside):
            return self._inner(part)
        return self._word(part)

    def _named(self, part: Named) -> Target:
        index, name = self._index, part.name.text
        if part.kind == "node":
            return self._node(part.name)
        if part.kind == "output":
            if name not in index.outputs:
                raise part.name.error(f"the model has no output {name!r}; its outputs are {listed(index.outputs)}")
            return Target(f"the output {name!r}", part.name, tensor=name, is_output=True)
        if name in index.producer or name in index.inputs or name in index.initializers:
            return Target(f"the tensor {name!r}", part.name, tensor=name)
        near = closest(name, [*index.inputs, *index.producer])
        hint = whereabouts(index, name, of_node=False, shaped=self.shaped) or _nearest(
            [self.shaped(n, n) for n in near]
        )
        raise part.name.error(f"the model has no tensor {name!r}{hint}")

    def _node(self, written: Text) -> Target:
        index, name = self._index, written.text
        positions = index.node_names.get(name, [])
        if not positions:
            hint = whereabouts(index, name, of_node=True, shaped=self.shaped)
            near = [self.shaped(n, self._output(index.node_names[n][0])) for n in closest(name, index.node_names)]
            raise written.error(f"the model has no node {name!r}{hint or _nearest(near)}")
        if len(positions) > 1:
            choices = [self.shaped(f"tensor:{out}", out) for p in positions for out in index.nodes[p].output]
            raise written.error(
                f"{len(positions)} nodes are called {name!r}; name one by its tensor: {listed(choices)}"
            )
        return Target(f"the node {name!r}", written, position=positions[0])

    def _operators(self, part: Operator, scope: Scope | None = None) -> list[Target]:
        return [
            Target(f"the node {self._index.label(position)!r}", part.type, position=position)
            for position in self._blocks.operators(part, scope)
        ]

    def _word(self, word: Word) -> list[Target]:
        written, block = word.path.written, word.block
        paths = self._paths.matches(word.path)
        if paths:
            return [self._module(path, written) for path in paths]
        typed = block is not None and self._blocks.is_type(block.type.text)
        if block is not None and (typed or block.type.text[0].isupper()):
            if word.problem and typed:
                raise word.problem
            near = self._paths.nearest(word.path, cutoff=0.7) if not typed else []
            hint = f"; modules of the model are {listed(self._candidates(near))}" if near else ""
            found = self._blocks.find(block, None, hint)
            return [Target(label, written, block=each) for label, each in found]
        if labelled := self._blocks.labelled(word.path):
            return [Target(label, written, block=each) for label, each in labelled]
        self._no_match(word)

    def _no_match(self, word: Word) -> NoReturn:
        written = word.path.written
        wrong = written.part(self._paths.known(word.path))
        if word.block and (other := self._blocks.type_like(word.block.type.text)):
            raise word.block.type.error(
                f"no module of the model matches {written.text!r}; the type of block is called {other}"
            )
        near = self._candidates(self._paths.nearest(word.path))
        hint = f"the nearest are {listed(near)}" if near else self._without_paths()
        raise wrong.error(f"no module of the model matches {written.text!r}; {hint}")

    def _without_paths(self) -> str:
        types = self._blocks.counted()
        if types:
            return f"its nodes carry no module paths, but it has the blocks {listed(types)}"
        return "its nodes carry no module paths, so name a tensor: tensor:NAME"

    def _candidates(self, paths: Sequence[str]) -> list[str]:
        return [self._candidate(path) for path in paths]

    def _candidate(self, path: str) -> str:
        return self.shaped(self._tree.modules[path].display, self.edges.leaving(path))

    def _module(self, path: str, written: Text) -> Target:
        return Target(f"the module {self._tree.modules[path].display!r}", written, path=path)

    def _inner(self, part: Inside) -> list[Target]:
        """Blocks or nodes inside of each of the scopes; indices count within one scope."""
        if part.scope is None:
            if isinstance(part.what, Operator):
                return self._operators(part.what)
            return [Target(label, part.what.type, block=b) for label, b in self._blocks.find(part.what)]
        found: list[Target] = []
        missing: SelectorError | None = None
        for scope in self._targets(part.scope):
            within = (scope.label, self.edges.nodes(scope))
            try:
                if isinstance(part.what, Operator):
                    found += self._operators(part.what, within)
                else:
                    blocks = self._blocks.find(part.what, within)
                    found += [Target(label, part.what.type, block=b) for label, b in blocks]
            except SelectorError as error:  # several scopes, such as those of a glob: some may be without
                missing = missing or error
        if missing and not found:
            raise missing
        return found

    # ------------------------------------------------------------------ what is behind, in front of and in a target

    def _behind(self, targets: Sequence[Target]) -> Iterator[Place]:
        if len(targets) == 1:
            yield self._place(targets[0], self._only(self.edges.outgoing(targets[0]), targets[0], "leave"))
            return
        places = [
            self._place(target, outgoing[0]) for target in targets if len(outgoing := self.edges.outgoing(target)) == 1
        ]
        maps = [place for place in places if self._is_map(place.tensor)]
        if not maps:
            self._no_map(targets, "leaves", places)
        yield from maps

    def _in_front(self, targets: Sequence[Target]) -> Iterator[tuple[Place, set[int]]]:
        found, others = [], []
        for target in targets:
            entering, nodes = self.edges.entering(target)
            if len(targets) == 1:
                entering = [self._only(entering, target, "enter")]
            if len(entering) == 1 and (len(targets) == 1 or self._is_map(entering[0])):
                place = self._place(target, entering[0])
                if target.position is not None:
                    place = replace(place, path=self._tree.of_node[target.position] or None)
                readers = nodes & set(self._index.consumers.get(entering[0], ()))
                found.append((place, readers))
            elif len(entering) == 1:
                others.append(self._place(target, entering[0]))
        if not found:
            self._no_map(targets, "enters", others)
        yield from found

    def _no_map(self, targets: Sequence[Target], verb: str, places: Sequence[Place]) -> NoReturn:
        written = targets[0].written
        what = "modules match" if targets[0].path is not None else "places match"
        reason = next((f"; the first: {why}" for place in places if (why := self._against(place))), "")
        raise written.error(
            f"{len(targets)} {what} {written.text!r}, and no image-like tensor {verb} any of them{reason}"
        )

    def _place(self, target: Target, tensor: str) -> Place:
        block = target.block
        if block is None:
            return Place(tensor, target.path, written=target.written)
        return Place(tensor, block.path if block.path in self._tree.modules else None, block.type, target.written)

    def _only(self, tensors: Sequence[str], target: Target, verb: str) -> str:
        if len(tensors) == 1:
            return tensors[0]
        if not tensors:
            raise target.written.error(f"no tensor {verb}s {target.label}")
        choices = [self.shaped(f"tensor:{name}", name) for name in tensors]
        ending = ""
        if verb == "enter":
            ending = f" with --after, and --consumers {target.written.text} for its readers there"
        raise target.written.error(f"{len(tensors)} tensors {verb} {target.label}; name one{ending}: {listed(choices)}")

    def _output(self, position: int) -> str:
        outputs = self._index.nodes[position].output
        return str(outputs[0]) if outputs else ""


def _nearest(near: Sequence[str]) -> str:
    return f"; the nearest are {listed(near)}" if near else ""
