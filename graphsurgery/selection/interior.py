"""Interior: the places within calls of local functions, found where the calls are written out.

A place there is one of the main graph where the call gives its tensor and nothing in the call reads it; else one of
the function, if that is called once. Where it is called more often, a block in it would be there for each call: such a
place is refused, with what can be named in the main graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import SelectorError, SiteError
from ..graph.local_functions import by_key, key_of
from ..graph.origins import Calls, Origin
from ..messages import shape_text
from .alternatives import sentence
from .blocks import Scope
from .borders import Target
from .branches import Consumer, OutputConsumer, nodes_of, of_nodes
from .context import Context
from .levels import Levels
from .parser import Block, Inside, Named, Operator, Selector, Word
from .resolver import InnerTensor, Place, Places, Resolver

if TYPE_CHECKING:
    from ..recognition import RecognisedBlock


class Interior:
    """The inside of the calls in one model.

    ``main`` and ``resolver`` are of the model as it is, ``inside`` and ``inner`` of that with its calls written out.
    """

    def __init__(self, main: Context, resolver: Resolver, inside: Context, inner: Resolver) -> None:
        self._main = main
        self._resolver = resolver
        self._inside = inside
        self._inner = inner
        self._origins = main.blocks.origins
        self._functions = by_key(main.model.structure.functions)
        self._levels = Levels(main.model.structure, inside.index, self._origins)
        self._scopes: dict[int, tuple[frozenset[int], str]] = {}

    # ------------------------------------------------------------------ what selectors name there

    def places(self, part: Selector, position: str) -> Places:
        """The places of what a part of a selector names there, in terms of the file; none where it names nothing.
        SiteError for a place that the file does not have.
        """
        try:
            targets = self._targets(part)
        except SelectorError:
            return []
        if not targets:
            return []
        try:
            found = self._inner.places(targets, position)
        except SelectorError:
            node_index = min(self._inner.borders.nodes(targets[0]) or {0})
            raise SiteError(
                targets[0].written.marked(self._refused(targets[0].label, "is", self._origins[node_index]))
            ) from None
        return [self._in_the_file(targets, *each, position) for each in found]

    def _targets(self, part: Selector) -> list[Target]:
        """What a part of a selector names, where that cannot be another thing in the main graph."""
        if isinstance(part, Named):
            return self._called(part)
        if isinstance(part, Word):
            found = self._inner.targets(part)
            named = all(target.path is not None for target in found)
            if named or part.block is None or not self._inside.blocks.of_type(part.block.type.text):
                return found
            return self._blocks(part.block)
        if isinstance(part, Inside) and part.scope is None:
            return self._blocks(part.what) if isinstance(part.what, Block) else self._targets(part.what)
        if isinstance(part, Inside):
            return self._inner.within(part.what, self._scope(part))
        if isinstance(part, Operator) and any(node.op_type == part.type.text for node in self._main.index.nodes):
            return []
        return self._inner.targets(part)

    def _called(self, part: Named) -> list[Target]:
        """The node or tensor of a name that one call has. SiteError where functions that are called once share it;
        where a function is called more often, nested_names.py says what can be named instead.
        """
        name, written = part.name.text, part.name
        if part.kind == "output":
            return []
        if part.kind == "node":
            nodes = [n for n, each in enumerate(self._origins) if each.calls and each.node.name == name]
            places = {self.node(n): self._inside.index.nodes[n].output[0] for n in nodes}
            found = [(self._origins[n].calls, Target(f"the node {name!r}", written, node_index=n)) for n in nodes]
        else:
            called = {tensor: calls for calls, tensor in self._levels.called(name)}
            places = {
                self.node(self._inside.index.producer[tensor]): tensor for tensor in called if self.is_made(tensor)
            }
            found = [(called[each], Target(f"the tensor {name!r}", written, tensor=each)) for each in places.values()]
        if any(self._levels.refusal(calls) for calls, _ in found):
            return []
        if len(found) > 1:
            sentence = f"{len(found)} functions have a {part.kind} {name!r}; name one: {self._inside.listed(places)}"
            raise SiteError(written.marked(sentence), candidates=tuple(places))
        return [target for _, target in found]

    def _blocks(self, block: Block) -> list[Target]:
        """Blocks of a type that only calls have, or parts, within calls, of blocks of the main graph."""
        tree = self._main.blocks
        if not tree.of_type(block.type.text):
            return self._inner.within(block, None)
        if not block.steps:
            return []
        whole = self._resolver.within(block._replace(steps=()), None)
        same = [(each.label, tree.within_call(each.block, self._inside.blocks)) for each in whole if each.block]
        return self._inner.parts(block, same)

    def _scope(self, part: Inside) -> Scope:
        """The nodes of what a scope names, those within its calls."""
        assert part.scope is not None
        try:
            targets, borders = self._resolver.targets(part.scope), self._resolver.borders
        except SelectorError:
            targets, borders = self._inner.targets(part.scope), self._inner.borders
            return Scope(targets[0].label, {n for each in targets for n in borders.nodes(each)})
        return self.scope_of({n for each in targets for n in borders.nodes(each)}, targets[0].label)

    def scope_of(self, callers: set[int], label: str) -> Scope:
        """The nodes within some nodes of the main graph."""
        return Scope(label, {n for n, origin in enumerate(self._origins) if origin.caller in callers})

    # ------------------------------------------------------------------ selectors of what is there

    def module(self, path: str, tensor: str) -> str | None:
        """The selector of a module, a dotted path, if it is that of a tensor within a call; else None."""
        module = self._inside.tree.modules.get(path)
        only = module and path not in self._main.tree.modules and self._inner.borders.leaving(path) == tensor
        return module.display if module and only else None

    def block(self, block: RecognisedBlock) -> str:
        """The selector of a block within a call."""
        for outermost in self._inside.blocks.blocks:
            if block.nodes <= outermost.nodes and outermost.root in self._whole:
                inner = next((name for name, part in _named(outermost) if part is block), None)
                if inner is not None:
                    return f"{self._whole[outermost.root]}.{inner}"
        last = self._inside.index.producer[block.output]
        within, scope = self._around(last)
        if not block.nodes <= within:  # it begins outside of the call
            return self.node(last)
        same = [each for each in self._inside.blocks.of_type(block.type) if each.nodes <= within]
        return f"{scope}//{block.type}[{same.index(block)}]"

    def output(self, tensor: str) -> str:
        """The selector of a tensor that a node within a call gives; of one among several, the name that it has there,
        which other functions can have as well.
        """
        origin, position = self.produced(tensor)
        node_index = self._inside.index.producer[tensor]
        outputs = self._inside.index.nodes[node_index].output
        alone = not any(self._is_read(each) for each in outputs if each != tensor)
        return self.node(node_index) if alone else f"tensor:{origin.node.output[position]}"

    def _is_read(self, tensor: str) -> bool:
        return tensor in self._inside.index.consumers or tensor in self._inside.index.outputs

    def node(self, node_index: int) -> str:
        """The selector of a node within a call."""
        nodes = self._inside.index.nodes
        within, scope = self._around(node_index)
        operator = nodes[node_index].op_type
        same = [n for n in sorted(within) if nodes[n].op_type == operator]
        return f"{scope}//op:{operator}[{same.index(node_index)}]"

    @cached_property
    def _whole(self) -> dict[str, str]:
        """Root of a block of the main graph -> its selector."""
        tree = self._main.blocks
        return {block.root: tree.selector(block) for block in tree.blocks}

    def _around(self, node_index: int) -> tuple[frozenset[int], str]:
        """The nodes within the call that a node is in, and its selector."""
        caller = self._origins[node_index].caller
        if caller not in self._scopes:
            main, nodes = self._main, self._main.index.nodes
            path = main.tree.of_node[caller]
            module = main.tree.modules[path] if path else None
            number = sum(node.op_type == nodes[caller].op_type for node in nodes[:caller])
            alone = module is not None and module.nodes == [caller]
            scope = module.display if module and alone else f"op:{nodes[caller].op_type}[{number}]"
            self._scopes[caller] = frozenset(self.scope_of({caller}, "").nodes), scope
        return self._scopes[caller]

    # ------------------------------------------------------------------ in terms of the file

    def is_made(self, tensor: str) -> bool:
        """Whether a node within a call gives a tensor."""
        producer = self._inside.index.producer.get(tensor)
        return producer is not None and bool(self._origins[producer].calls)

    def is_in_the_file(self, tensor: str) -> bool:
        """Whether a tensor is one of the main graph."""
        return tensor in self._main.index.producer or tensor in self._main.index.inputs

    def _in_the_file(
        self, targets: Sequence[Target], place: Place, consumers: set[Consumer], position: str
    ) -> tuple[Place, set[Consumer]]:
        """A place as the file has it: in the main graph, or in a function that is called once. SiteError where it is in
        none of these.
        """
        levels, tensor = self._levels, place.tensor
        everyone = set(self._inside.index.consumers.get(tensor, ()))
        chosen = nodes_of(consumers) if position == "before" else everyone
        calls = levels.in_front_of(tensor, chosen) if position == "before" else levels.outermost(tensor)
        mine, rest = levels.split(tensor, chosen, calls)
        name = levels.name(tensor, calls)
        if name and not mine & rest and not calls:
            whole = position == "after"
            return place, self._resolver.borders.branches.consumers(tensor) if whole else of_nodes(mine)
        why = levels.refusal(calls) if calls else ""
        if calls and name and not mine & rest and not why:
            return replace(place, inner=self._inner_tensor(calls, name, mine, rest, position)), consumers
        shape, label = self._inside.shapes.lookup(tensor)[1], targets[0].label
        if len(targets) > 1:
            label = f"the first of {len(targets)} places" + (f", {place.path!r}," if place.path else "")
        origin = levels.origin(tensor)
        if position == "before" or origin is None or not origin.calls:
            origin = self._origins[min(chosen)]
        verb = f"gives {shape_text(shape)}" if shape and position == "after" else "is"
        said = self._refused(label, verb, origin._replace(calls=calls or origin.calls), why)
        raise SiteError(place.written.marked(said) if place.written else said)

    def takes_block(self, tensor: str) -> bool:
        """Whether a block can be put after a tensor within a call."""
        calls = self._levels.outermost(tensor)
        return bool(self._levels.name(tensor, calls)) and not (calls and self._levels.refusal(calls))

    def _inner_tensor(self, calls: Calls, name: str, mine: set[int], rest: set[int], position: str) -> InnerTensor:
        function = self._levels.function(calls)
        rewired = of_nodes(mine)
        if position == "after" and name in function.output:
            rewired.add(OutputConsumer(name))
        labels = [node.name or f"{node.op_type}#{n}" for n, node in enumerate(function.node)]
        others = tuple(labels[n] for n in sorted(rest))
        if position == "before" and name in function.output:
            others = (*others, f"output:{name}")
        key = (function.domain, function.name, function.overload)
        return InnerTensor(key, name, tuple(labels[n] for n in sorted(mine)), others, frozenset(rewired))

    def _refused(self, label: str, verb: str, origin: Origin, why: str = "") -> str:
        alone = f" for that call alone: {why}" if why else ""
        return f"{label} {verb} inside {self.where(origin)}, where no block can be put{alone}; {self.other(origin)}"

    def where(self, origin: Origin) -> str:
        """What a node is in, for messages."""
        function = self.function_of(origin)
        caller = self._main.index.label(origin.caller)
        return f"the local function {function!r}, which {caller} calls"

    def function_of(self, origin: Origin) -> str:
        """The name of the function that a node within a call is in."""
        return str(self._functions[key_of(origin.calls[-1].node)].name)

    def other(self, origin: Origin) -> str:
        """What can be named in the stead of a node within a call."""
        return sentence(self._main, origin.caller)

    def produced(self, tensor: str) -> tuple[Origin, int]:
        """Where in the file the node stands that gives a tensor, and which of its outputs that is."""
        node_index = self._inside.index.producer[tensor]
        return self._origins[node_index], list(self._inside.index.nodes[node_index].output).index(tensor)


def _named(block: RecognisedBlock) -> Iterator[tuple[str, RecognisedBlock]]:
    """The parts of a block, however deep, by the names that lead to them."""
    for name, part in block.parts:
        yield name, part
        for inner, deeper in _named(part):
            yield f"{name}.{inner}", deeper
