"""BlockFinder: the recognised blocks and the operators that selectors name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from ..graph.module_paths import Module
from ..messages import closest, listed
from ..modelfile.operators import operator
from .context import Context, tensor_selectors
from .modules import PathFinder
from .parser import Block, Item, Operator, Path, Subscript
from .text import Text

if TYPE_CHECKING:
    from ..recognition import BlockTree, RecognisedBlock


class Scope(NamedTuple):
    """What a selector looks for blocks and nodes in."""

    label: str
    """how messages call it"""
    nodes: Set[int]


class BlockFinder:
    """Looks up what is recognised by structure. Recognition runs when it is first asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._index = context.index
        self._of_node = context.tree.of_node
        self._starts: dict[str, dict[int, list[tuple[int, RecognisedBlock]]]] = {}

    @property
    def _blocks(self) -> BlockTree:
        return self._context.blocks

    @cached_property
    def _everywhere(self) -> Scope:
        return Scope("the model", set(range(len(self._index.nodes))))

    # ------------------------------------------------------------------ blocks

    def is_type(self, name: str) -> bool:
        """Whether the model has blocks of this type."""
        return bool(self._blocks.of_type(name))

    def is_head(self, tensors: Sequence[str]) -> bool:
        """Whether these are the several maps of a head, which does the same with all: its name means each."""
        entries = (
            set(map(self._blocks.view.root, each.entries)) for each in self._blocks.blocks if each.role == "head"
        )
        return len(tensors) > 1 and set(map(self._blocks.view.root, tensors)) in entries

    @cached_property
    def _labels(self) -> dict[str, RecognisedBlock]:
        """module path -> the largest block that is labelled with it"""
        return {block.path: block for block in self._blocks.everything() if block.path}

    def labelled(self, path: Path) -> list[tuple[str, RecognisedBlock]]:
        """The blocks that a module path names by the names of their weights, where nodes tell no paths."""
        modules = {label: Module(label, label) for label in self._labels}
        finder = PathFinder(self._context, modules, lambda label: self._labels[label].output)
        return [(f"the module {label!r}", self._labels[label]) for label in finder.matches(path)]

    def type_like(self, name: str) -> str | None:
        """The type of a block in the model that is called so but for upper and lower case."""
        return next((known for known in self._blocks.types if known.lower() == name.lower()), None)

    def counted(self, scope: Scope | None = None) -> list[str]:
        """The types of the blocks in a scope, each with how many there are: ``C2f (8)``. Other names are left out."""
        found = (each for each in self._blocks.everything() if self._is_inside(each, scope or self._everywhere))
        return [f"{name} ({count})" for name, count in Counter(each.type for each in found).most_common()]

    def find(
        self, block: Block, scope: Scope | None = None, modules: Mapping[str, str] | None = None
    ) -> list[tuple[str, RecognisedBlock]]:
        """The blocks, or parts of blocks, each with how messages call it. SelectorError if there are none.

        ``modules``: those of the model that could have been meant, each with the tensor that leaves it.
        """
        name, scope = block.type.text, scope or self._everywhere
        every = self._all(name, scope)
        if not every:
            if scope is self._everywhere and (other := self.type_like(name)):
                alike = self._context.accepted({other: ""})
                raise block.type.error(f"{scope.label} has no {name}; the type of block is called {other}", alike)
            hint = f"; modules of the model are {self._context.listed(modules)}" if modules else ""
            raise block.type.error(f"{scope.label} has no {name}; {self.instead(scope)}{hint}", modules or ())
        last = {f"{name}[{number}]": each.output for number, each in every[-1:]}
        chosen = self._picked(block.subscript, every, f"{scope.label} has {len(every)} {name}", "is", last)
        found = [(f"{name}[{number}]", each) for number, each in chosen]
        return self.parts(found, block.steps) if block.steps else found

    def _picked(
        self, subscript: Subscript | None, items: list[Item], has: str, verb: str, last: Mapping[str, str]
    ) -> list[Item]:
        """The items that a subscript names. SelectorError, with a selector of the last one, if it names none."""
        chosen = subscript.pick(items) if subscript else items
        if subscript and not chosen:
            valid = f"[0] to [{len(items) - 1}]" if len(items) > 1 else "only [0]"
            kept = self._context.accepted(last)
            hint = f"; the last {verb} {self._context.listed(kept)}" if kept else ""
            raise subscript.written.error(f"{has}, so {valid}{hint}", kept)
        return chosen

    def _all(self, name: str, scope: Scope) -> list[tuple[int, RecognisedBlock]]:
        """The blocks of a type in a scope, numbered as in the whole model."""
        if scope is self._everywhere:
            return list(enumerate(self._blocks.of_type(name)))
        if name not in self._starts:
            table = self._starts[name] = {}
            for number, found in enumerate(self._blocks.of_type(name)):
                start = min((n for n in found.nodes if self._of_node[n]), default=min(found.nodes))
                table.setdefault(start, []).append((number, found))
        starts = self._starts[name]
        inside = [item for n in scope.nodes & starts.keys() for item in starts[n] if self._is_inside(item[1], scope)]
        return sorted(inside, key=lambda item: item[0])

    def _is_inside(self, found: RecognisedBlock, scope: Scope) -> bool:
        """Whether all nodes of a block are in a scope, those aside of which the model does not tell the module."""
        return all(n in scope.nodes or not self._of_node[n] for n in found.nodes)

    def instead(self, scope: Scope | None = None) -> str:
        """What is in a scope that does not have what is looked for."""
        if types := self.counted(scope):
            return f"it has {listed(types, 12)}"
        if not {"Conv", "QLinearConv", "ConvInteger", "FusedConv"} & set(map(operator, self._index.nodes)):
            return "there is no convolution in the model, and so nothing to recognise; name a tensor: tensor:NAME"
        return "no block was recognised there"

    def parts(
        self, found: Sequence[tuple[str, RecognisedBlock]], steps: Sequence[Text]
    ) -> list[tuple[str, RecognisedBlock]]:
        reached = [each for label, block in found for each in _descend(label, block, steps, 0)]
        if inner := [(label, part) for depth, label, part in reached if depth == len(steps)]:
            return inner
        depth, label, block = max(reached, key=lambda each: each[0])
        rest = steps[depth].joined(*steps[depth + 1 :])
        missing = ".".join(step.text for step in steps[depth:])
        parts = {name: part.output for name, part in block.parts}
        has = f"it has the parts {self._context.listed(parts, 12)}" if parts else "it has no parts"
        kept = self._context.accepted({f"{label}.{name}": tensor for name, tensor in parts.items()})
        raise rest.error(f"{label} ({block.type}) has no part {missing!r}; {has}", kept)

    # ------------------------------------------------------------------ operators

    @cached_property
    def _by_operator(self) -> dict[str, list[int]]:
        """operator -> indexes of its nodes, in order"""
        table: dict[str, list[int]] = {}
        for node_index, node in enumerate(self._index.nodes):
            table.setdefault(node.op_type, []).append(node_index)
        return table

    def operators(self, part: Operator, scope: Scope | None = None) -> list[int]:
        """Indexes of the nodes of an operator. SelectorError if there are none."""
        name, scope = part.type.text, scope or self._everywhere
        nodes = [node_index for node_index in self._by_operator.get(name, ()) if node_index in scope.nodes]
        if not nodes:
            counts = Counter(self._index.nodes[node_index].op_type for node_index in sorted(scope.nodes))
            most = [other for other, _ in counts.most_common()]
            near = list(dict.fromkeys([*closest(name, most, cutoff=0.6), *most]))
            shown = [f"{other} ({counts[other]})" for other in near]
            has = f"its operators are {listed(shown)}" if shown else "it has no nodes at all"
            kept = self._context.accepted({f"op:{other}": "" for other in near})
            raise part.type.error(f"{scope.label} has no {name} nodes; {has}", kept)
        last = tensor_selectors(self._index.nodes[nodes[-1]].output[:1]) or {self._index.label(nodes[-1]): ""}
        return self._picked(part.subscript, nodes, f"{scope.label} has {len(nodes)} {name} nodes", "gives", last)


def _descend(
    label: str, block: RecognisedBlock, steps: Sequence[Text], depth: int
) -> Iterator[tuple[int, str, RecognisedBlock]]:
    """The block and the parts that the steps from ``depth`` on lead to, each with how many steps lead to it."""
    yield depth, label, block
    for name, part in block.parts:
        own = name.split(".")
        wanted = steps[depth : depth + len(own)]
        if len(wanted) == len(own) and all(fnmatchcase(a, b.text) for a, b in zip(own, wanted, strict=True)):
            yield from _descend(f"{label}.{name}", part, steps, depth + len(own))
