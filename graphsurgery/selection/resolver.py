"""Resolver: what selectors point at in one model.

A selector names targets (tensors, nodes, modules, blocks); a target has a tensor that leaves it, tensors that enter
it, and nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeAlias

from ..errors import SelectorError, SiteError, option
from ..messages import closest, listed
from .blocks import BlockFinder, Scope
from .borders import Borders, Target
from .branches import Consumer, OutputConsumer, nodes_of, of_nodes
from .context import Context, tensor_selectors
from .modules import PathFinder
from .nested_names import whereabouts
from .parser import Block, Inside, Named, Operator, Role, Selector, Word, parse
from .refusals import refusal
from .roles import RoleFinder
from .suggestions import Use
from .text import Text

if TYPE_CHECKING:
    from ..recognition import RecognisedBlock


Places: TypeAlias = "list[tuple[Place, set[Consumer]]]"
"""places, and the consumers of the tensor there"""
Elsewhere: TypeAlias = "Callable[[Selector, str], Places]"


class InnerTensor(NamedTuple):
    """A tensor within a call of a local function."""

    function: tuple[str, ...]
    """domain, name and overload"""
    name: str
    """what it is called in the function"""
    nodes: tuple[str, ...]
    """how messages call the nodes of the function that are to read a block"""
    others: tuple[str, ...]
    """and those that go on reading the tensor itself"""
    rewired: frozenset[Consumer]
    """the first, and the output of the function that the tensor is, if that is to be the block's"""


@dataclass(frozen=True)
class Place:
    """A tensor that a selector points at, and the path and type of the module or block that it leaves or enters."""

    tensor: str
    path: str | None = None
    type: str | None = None
    written: Text | None = field(default=None, compare=False)
    """the part of a selector that names it"""
    note: str = field(default="", compare=False)
    """what is to be said of it"""
    inner: InnerTensor | None = None
    """what it is in a local function; None in the main graph"""

    def described(self, position: str = "after") -> str:
        """How messages call it."""
        verb = "leaves" if position == "after" else "enters"
        return repr(self.tensor) if self.path is None else f"{self.tensor!r}, which {verb} {self.path},"


class Resolver:
    """Finds what selectors point at in one model."""

    def __init__(self, context: Context, elsewhere: Elsewhere | None = None) -> None:
        """``elsewhere`` is asked for the places of what names nothing in the main graph."""
        self._context = context
        self._elsewhere = elsewhere
        self._index = context.index
        self.borders = Borders(context)
        self._paths = PathFinder(context, context.tree.modules, self.borders.leaving)
        self._blocks = BlockFinder(context)
        self._roles = RoleFinder(context, self._blocks)

    # ------------------------------------------------------------------ the two things to ask for

    def resolve(self, selector: str, position: str = "after") -> Places:
        """The places after, or before, what a selector names, in the order of the model, each once, with the consumers
        of the tensor there: before something those in it. SelectorError if there are none.
        """
        with self._context.suggestions.used("before" if position == "before" else "after"):
            return self._resolve(selector, position)

    def _resolve(self, selector: str, position: str) -> Places:
        found: dict[tuple[str, frozenset[Consumer], bool], tuple[Place, set[Consumer]]] = {}
        for part in parse(selector):
            for place, consumers in self._found(part, position):
                found.setdefault((place.tensor, frozenset(consumers), place.inner is None), (place, consumers))
        if position == "before":
            return sorted(found.values(), key=lambda item: min(nodes_of(item[1])))
        return sorted(found.values(), key=lambda item: self._index.producer.get(item[0].tensor, -1))

    def _found(self, part: Selector, position: str) -> Places:
        """The places of one part of a selector."""
        try:
            return self.places(self.targets(part), position)
        except SelectorError:
            if self._elsewhere is not None and (found := self._elsewhere(part, position)):
                return found
            raise

    def resolve_consumers(self, selector: str) -> set[Consumer]:
        """What a selector names and can read a tensor: nodes, and outputs of the model."""
        with self._context.suggestions.used("consumers"):
            return self._resolve_consumers(selector)

    def _resolve_consumers(self, selector: str) -> set[Consumer]:
        found = set[Consumer]()
        for part in parse(selector):
            if isinstance(part, Role):
                found |= of_nodes(self._roles.region(part))
                continue
            if isinstance(part, Word):
                self._roles.region_meant(part.path.written)
            for target in self.targets(part):
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

    def try_selector(self, selector: str, use: Use) -> list[str] | None:
        """The tensors at which a block would be put for a selector; None where it, or a place of it, is refused."""
        try:
            if use == "consumers":
                self._resolve_consumers(selector)
                return []
            places = [place for place, _ in self._resolve(selector, use)]
        except (SelectorError, SiteError):
            return None
        tensors = [place.tensor for place in places]
        if any(place.inner is None and refusal(self._context, place.tensor, place.described) for place in places):
            return None
        return tensors

    # ------------------------------------------------------------------ targets

    def targets(self, part: Selector) -> list[Target]:
        """What a part of a selector names. SelectorError if there is nothing."""
        if isinstance(part, Named):
            return [{"node": self._node, "output": self._output, "tensor": self._tensor}[part.kind](part.name)]
        if isinstance(part, Role):
            found = self._roles.tensors(part)
            return [Target(f"the tensor {t!r}", part.name, tensor=t, note=self._roles.note(t)) for t in found]
        if isinstance(part, Operator):
            return self._operators(part)
        if isinstance(part, Inside):
            return self._inner(part)
        return self._word(part)

    def _output(self, written: Text) -> Target:
        name, outputs = written.text, self._index.outputs
        if name not in outputs:
            sentence = f"the model has no output {name!r}; its outputs are {listed(outputs)}"
            raise written.error(sentence, self._context.accepted({f"output:{output}": output for output in outputs}))
        return Target(f"the output {name!r}", written, tensor=name, is_output=True)

    def _tensor(self, written: Text) -> Target:
        index, name = self._index, written.text
        if name in index.producer or name in index.inputs or name in index.initializers:
            return Target(f"the tensor {name!r}", written, tensor=name)
        near = {f"tensor:{other}": other for other in closest(name, [*index.inputs, *index.producer])}
        raise self._unknown(written, "tensor", near)

    def _node(self, written: Text) -> Target:
        index, name = self._index, written.text
        nodes = index.node_names.get(name, [])
        if not nodes:
            same = {other: index.node_names[other][0] for other in closest(name, index.node_names)}
            near = {f"node:{other}": next(iter(index.nodes[n].output), "") for other, n in same.items()}
            raise self._unknown(written, "node", near)
        if len(nodes) > 1:
            outputs = tensor_selectors(output for node_index in nodes for output in index.nodes[node_index].output)
            kept = self._context.suggestions.accepted(outputs, use="after")
            after = self._context.suggestions.after
            hint = f"; name one {after}by its tensor: {self._context.listed(kept)}" if kept else ""
            raise written.error(f"{len(nodes)} nodes are called {name!r}{hint}", kept)
        return Target(f"the node {name!r}", written, node_index=nodes[0])

    def _unknown(self, written: Text, kind: str, near: Mapping[str, str]) -> SelectorError:
        name, kept = written.text, self._context.accepted(near)
        named = {selector.removeprefix(f"{kind}:"): tensor for selector, tensor in kept.items()}
        hint = f"; the nearest are {self._context.listed(named)}" if named else ""
        hint = whereabouts(self._context, name, of_node=kind == "node") or hint
        return written.error(f"the model has no {kind} {name!r}{hint}", kept)

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
        if not typed and len(word.path.steps) == 1:
            self._roles.meant(written, f"no module or block of the model is called {written.text!r}")
        if block is not None and (typed or block.type.text[0].isupper()):
            if word.problem and typed:
                raise word.problem
            near = self._context.accepted(self._paths.nearest(word.path, cutoff=0.7)) if not typed else {}
            blocks = self._blocks.find(block, None, near)
        else:
            blocks = self._blocks.labelled(word.path) or self._no_match(word)
        return [Target(label, written, block=found) for label, found in blocks]

    def _no_match(self, word: Word) -> NoReturn:
        written = word.path.written
        sentence = f"no module of the model matches {written.text!r}"
        if word.block and (other := self._blocks.type_like(word.block.type.text)):
            alike = self._context.accepted({other: ""})
            raise word.block.type.error(f"{sentence}; the type of block is called {other}", alike)
        near = self._context.accepted(self._paths.nearest(word.path))
        paths = "" if self._context.tree.modules else "its nodes carry no module paths, "
        if near:
            hint = f"the nearest are {self._context.listed(near)}"
        elif types := self._blocks.counted():
            hint = f"{paths and f'{paths}but '}it has the blocks {listed(types)}"
        else:
            hint = f"{paths and f'{paths}so '}name a tensor: tensor:NAME"
        raise written.part(self._paths.known(word.path)).error(f"{sentence}; {hint}", near)

    def parts(self, block: Block, of: Sequence[tuple[str, RecognisedBlock]]) -> list[Target]:
        """The parts of blocks, given with what messages call them, that a selector names. SelectorError if they have
        none of the name.
        """
        return [Target(label, block.type, block=each) for label, each in self._blocks.parts(of, block.steps)]

    def _inner(self, part: Inside) -> list[Target]:
        """Blocks or nodes inside of each of the scopes; indices count within one scope."""
        if part.scope is None:
            return self.within(part.what, None)
        found, missing = list[Target](), list[SelectorError]()
        for scope in self.targets(part.scope):
            try:
                found += self.within(part.what, Scope(scope.label, self.borders.nodes(scope)))
            except SelectorError as error:  # several scopes, such as those of a glob: some may be without
                missing.append(error)
        if missing and not found:
            raise missing[0]
        return found

    def within(self, what: Block | Operator, scope: Scope | None) -> list[Target]:
        """The blocks or nodes in a scope; None: in the model. SelectorError if there are none."""
        if isinstance(what, Operator):
            return self._operators(what, scope)
        return [Target(label, what.type, block=block) for label, block in self._blocks.find(what, scope)]

    # ------------------------------------------------------------------ the places after and before targets

    def places(self, targets: Sequence[Target], position: str) -> Places:
        """The places after, or before, targets. SelectorError if no single feature map is there."""
        before, found, others = position == "before", [], []
        verb = "enter" if before else "leave"
        for target in targets:
            tensors, nodes = self.borders.entering(target) if before else (self.borders.outgoing(target), set())
            if len(targets) == 1 and not (before and self._blocks.is_head(tensors)):
                tensors = [self._only(tensors, target, verb)]
            if len(tensors) != 1 and not (before and self._blocks.is_head(tensors)):
                continue
            for tensor in tensors:
                place, consumers = self._place(target, tensor), self.borders.branches.consumers(tensor)
                if len(targets) > 1 and not self._context.is_map(place.tensor):
                    others.append(place)
                    continue
                if before and target.node_index is not None:
                    place = replace(place, path=self._context.tree.of_node[target.node_index] or None)
                found.append((place, consumers & of_nodes(nodes) if before else consumers))
        if not found:
            self._no_map(targets, f"{verb}s", others)
        return found

    def _no_map(self, targets: Sequence[Target], verb: str, places: Sequence[Place]) -> NoReturn:
        written = targets[0].written
        what = "modules match" if targets[0].path is not None else "places match"
        reasons = (refusal(self._context, place.tensor, place.described) for place in places)
        reason = next((f"; the first: {error.message}" for error in reasons if error), "")
        raise written.error(
            f"{len(targets)} {what} {written.text!r}, and no image-like tensor {verb} any of them{reason}"
        )

    def _place(self, target: Target, tensor: str) -> Place:
        block = target.block
        if block is None:
            return Place(tensor, target.path, written=target.written, note=target.note)
        path = block.path if block.path in self._context.tree.modules else None
        return Place(tensor, path, block.type, target.written)

    def _only(self, tensors: Sequence[str], target: Target, verb: str) -> str:
        if len(tensors) == 1:
            return tensors[0]
        if not tensors:
            raise target.written.error(f"no tensor {verb}s {target.label}")
        sentence = f"{len(tensors)} tensors {verb} {target.label}"
        choices = self._context.suggestions.accepted(tensor_selectors(tensors), use="after")
        if not choices:
            named = self._context.listed(tensor_selectors(tensors))
            raise target.written.error(f"{sentence}, and a block can be put at none of them: {named}")
        ending = ""
        if verb == "enter":
            consumers = option("consumers", target.written.text)
            ending = f" with {option('after')}, and {consumers} for its consumers there"
        raise target.written.error(f"{sentence}; name one{ending}: {self._context.listed(choices)}", choices)
