"""BlockFinder: the recognised blocks, roles and operators that selectors name, and the errors where there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import SelectorError
from ..graph.index import GraphIndex
from ..graph.module_paths import Module, ModuleTree
from ..messages import closest, listed
from .modules import PathFinder
from .parser import Block, Operator, Path, Role
from .text import Text

if TYPE_CHECKING:
    from ..recognition import BlockTree, RecognisedBlock

Scope = tuple[str, set[int]]
"""how messages call a scope, and the positions of its nodes"""


class BlockFinder:
    """Looks up what is recognised by structure. Recognition runs when it is first asked for."""

    def __init__(
        self,
        index: GraphIndex,
        tree: ModuleTree,
        blocks: Callable[[], BlockTree],
        shaped: Callable[[str, str], str],
    ) -> None:
        self._index = index
        self._of_node = tree.of_node
        self._recognise = blocks
        self._shaped = shaped
        self._starts: dict[str, dict[int, list[tuple[int, RecognisedBlock]]]] = {}

    @cached_property
    def _blocks(self) -> BlockTree:
        return self._recognise()

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        """operator -> positions of its nodes"""
        table: dict[str, list[int]] = {}
        for position, node in enumerate(self._index.nodes):
            table.setdefault(node.op_type, []).append(position)
        return table

    # ------------------------------------------------------------------ blocks

    def is_type(self, name: str) -> bool:
        """Whether the model has blocks of this type."""
        return bool(self._blocks.of_type(name))

    @cached_property
    def _labels(self) -> dict[str, RecognisedBlock]:
        """module path -> the largest block that is labelled with it"""
        return {block.path: block for block in self._blocks.everything() if block.path}

    def labelled(self, path: Path) -> list[tuple[str, RecognisedBlock]]:
        """The blocks that a module path names by the names of their weights, where nodes tell no paths."""
        finder = PathFinder({label: Module(label, label) for label in self._labels})
        return [(f"the module {label!r}", self._labels[label]) for label in finder.matches(path)]

    def type_like(self, name: str) -> str | None:
        """The type of a block in the model that is called so but for upper and lower case."""
        return next((known for known in self._blocks.types if known.lower() == name.lower()), None)

    def counted(self, scope: Scope | None = None) -> list[str]:
        """The types of the blocks in a scope, each with how many there are: ``C2f (8)``. Other names are left out."""
        found = (each for each in self._blocks.everything() if scope is None or self._is_inside(each, scope[1]))
        return [f"{name} ({count})" for name, count in Counter(each.type for each in found).most_common()]

    def find(self, block: Block, scope: Scope | None = None, hint: str = "") -> list[tuple[str, RecognisedBlock]]:
        """The blocks, or parts of blocks, each with how messages call it. SelectorError if there are none."""
        name = block.type.text
        every = self._all(name, scope)
        whose = scope[0] if scope else "the model"
        if not every:
            raise block.type.error(f"{whose} has no {name}; {self._instead(scope)}{hint}")
        chosen = block.subscript.pick(every) if block.subscript else every
        if not chosen:
            assert block.subscript is not None
            number, last = every[-1]
            last_one = self._shaped(f"{name}[{number}]", last.output)
            raise block.subscript.written.error(f"{_range(whose, name, len(every))}; the last is {last_one}")
        found = [(f"{name}[{number}]", each) for number, each in chosen]
        return self._parts(found, block.steps) if block.steps else found

    def _all(self, name: str, scope: Scope | None) -> list[tuple[int, RecognisedBlock]]:
        """The blocks of a type in a scope, numbered as in the whole model."""
        numbered = list(enumerate(self._blocks.of_type(name)))
        if scope is None:
            return numbered
        if name not in self._starts:
            table = self._starts[name] = {}
            for number, found in numbered:
                start = min((p for p in found.nodes if self._of_node[p]), default=min(found.nodes))
                table.setdefault(start, []).append((number, found))
        nodes, starts = scope[1], self._starts[name]
        inside = [item for p in nodes & starts.keys() for item in starts[p] if self._is_inside(item[1], nodes)]
        return sorted(inside, key=lambda item: item[0])

    def _is_inside(self, found: RecognisedBlock, nodes: set[int]) -> bool:
        """Whether all nodes of a block are among these, those aside of which the model does not tell the module."""
        return all(p in nodes or not self._of_node[p] for p in found.nodes)

    def _instead(self, scope: Scope | None) -> str:
        if types := self.counted(scope):
            return f"it has {listed(types, 12)}"
        if not {"Conv", "QLinearConv", "ConvInteger", "FusedConv"} & self._positions.keys():
            return "there is no convolution in the model, and so nothing to recognise; name a tensor: tensor:NAME"
        return "no block was recognised there"

    def _parts(
        self, found: Sequence[tuple[str, RecognisedBlock]], steps: Sequence[Text]
    ) -> list[tuple[str, RecognisedBlock]]:
        inner: list[tuple[str, RecognisedBlock]] = []
        deepest: tuple[int, str, RecognisedBlock] = (0, *found[0])
        for label, block in found:
            for depth, name, part in _descend(label, block, steps, 0):
                if depth == len(steps):
                    inner.append((name, part))
                elif depth > deepest[0]:
                    deepest = (depth, name, part)
        if inner:
            return inner
        depth, label, block = deepest
        rest = steps[depth].joined(*steps[depth + 1 :])
        parts = [self._shaped(name, part.output) for name, part in block.parts]
        has = f"has no part {'.'.join(step.text for step in steps[depth:])!r}"
        raise rest.error(
            f"{label} ({block.type}) {has}; {f'it has the parts {listed(parts, 12)}' if parts else 'it has no parts'}"
        )

    # ------------------------------------------------------------------ roles

    def role(self, part: Role) -> list[str]:
        """The tensors of a role. SelectorError if there is no such role, or none in this model."""
        tensors = [tensor for name in self._roles(part) for tensor in self._blocks.role(name)]
        if not tensors:
            raise self._no_role(part)
        return list(dict.fromkeys(tensors))

    def region(self, part: Role) -> set[int]:
        """The nodes of the backbone, the neck or the head. SelectorError for any other role."""
        regions: dict[str, set[int]] = {}
        for block in self._blocks.blocks:
            if block.role:
                regions.setdefault(block.role, set()).update(block.nodes)
        nodes = {p for name in regions if fnmatchcase(name, part.name.text) for p in regions[name]}
        if not nodes:
            has = f"; the parts of this model that read something are {', '.join(regions)}" if regions else ""
            raise part.name.error(f"role:{part.name.text} does not name a part of the model such as role:neck{has}")
        return nodes

    def _roles(self, part: Role) -> list[str]:
        names = [name for name in self._blocks.ROLES if fnmatchcase(name, part.name.text)]
        if not names:
            near = closest(part.name.text, self._blocks.ROLES, cutoff=0.6)
            hint = f"; the nearest are {listed(near)}" if near else ""
            raise part.name.error(
                f"there is no role {part.name.text!r}{hint}; the roles are {', '.join(self._blocks.ROLES)}"
            )
        return names

    def _no_role(self, part: Role) -> SelectorError:
        name = part.name.text
        present = [other for other in self._blocks.ROLES if self._blocks.role(other)]
        why = "no SPPF was recognised in it" if "sppf" in name and not self.is_type("SPPF") else ""
        if not present:
            why = self._instead(None)
        has = f"; it has {', '.join(present)}" if present else ""
        return part.name.error(f"the model has no {name}{': ' if why else ''}{why}{has}")

    # ------------------------------------------------------------------ operators

    def operators(self, part: Operator, scope: Scope | None = None) -> list[int]:
        """Positions of the nodes of an operator. SelectorError if there are none."""
        name, whose = part.type.text, scope[0] if scope else "the model"
        positions = self._of_operator(name, scope)
        if not positions:
            counts = {other: len(self._of_operator(other, scope)) for other in self._positions}
            most = sorted((other for other in counts if counts[other]), key=lambda other: -counts[other])
            near = [other for other in closest(name, most, cutoff=0.6) if counts[other]]
            shown = [f"{other} ({counts[other]})" for other in dict.fromkeys([*near, *most])]
            has = f"its operators are {listed(shown)}" if shown else "it has no nodes at all"
            raise part.type.error(f"{whose} has no {name} nodes; {has}")
        chosen = part.subscript.pick(positions) if part.subscript else positions
        if not chosen:
            assert part.subscript is not None
            last = next(iter(self._index.nodes[positions[-1]].output), "")
            last_one = self._shaped(f"tensor:{last}", last) if last else self._index.label(positions[-1])
            has = _range(whose, f"{name} nodes", len(positions))
            raise part.subscript.written.error(f"{has}; the last gives {last_one}")
        return chosen

    def _of_operator(self, name: str, scope: Scope | None) -> list[int]:
        if scope is None:
            return self._positions.get(name, [])
        return sorted(position for position in scope[1] if self._index.nodes[position].op_type == name)


def _range(whose: str, what: str, count: int) -> str:
    return f"{whose} has {count} {what}, so {f'[0] to [{count - 1}]' if count > 1 else 'only [0]'}"


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
