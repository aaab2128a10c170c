"""Edges: the tensors that leave and enter what a selector names, and the nodes in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..graph import quantisation
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from .branches import Beside
from .text import Text

if TYPE_CHECKING:
    from ..recognition import RecognisedBlock


@dataclass(frozen=True)
class Target:
    """One thing that a selector names."""

    label: str
    """how messages call it"""
    written: Text
    """the part of the selector that names it"""
    tensor: str | None = None
    position: int | None = None
    path: str | None = None
    block: RecognisedBlock | None = None
    is_output: bool = False


class Edges:
    """Looks at the borders of modules, blocks and nodes in one model."""

    def __init__(self, index: GraphIndex, tree: ModuleTree, is_map: Callable[[str], bool]) -> None:
        self._index = index
        self._tree = tree
        self._is_map = is_map
        self.beside = Beside(index)
        self._leaving: dict[str, list[str]] = {}
        self._inside: dict[str, set[int]] = {}

    def leaving(self, path: str) -> str:
        """The tensor that leaves a module; "" without exactly one."""
        leaving = self.leaving_tensors(path)
        return leaving[0] if len(leaving) == 1 else ""

    def leaving_tensors(self, path: str) -> list[str]:
        """The tensors that depend on the model's input, are made in the module and read outside of it."""
        if path not in self._leaving:
            self._leaving[path] = self._find_leaving(path)
        return self._leaving[path]

    def outgoing(self, target: Target) -> list[str]:
        """The tensors that leave a target."""
        index = self._index
        if target.tensor is not None:
            return [target.tensor]
        if target.block is not None:
            return [target.block.output]
        if target.path is not None:
            return self.leaving_tensors(target.path)
        assert target.position is not None
        outputs = index.nodes[target.position].output
        return [name for name in outputs if name in index.consumers or name in index.outputs]

    def entering(self, target: Target) -> tuple[list[str], set[int]]:
        """The tensors that depend on the model's input, are made outside of the target and read in it, and the nodes
        that can read them there.

        To these belong the nodes in front of the target that quantise for it alone, and, where one tensor enters it in
        several forms, those that make the forms of it.
        """
        if target.tensor is not None:
            raise target.written.error(
                f"{target.label} is no module, so there is nothing in front of it; say --after, with --consumers for "
                "some of its readers only"
            )
        index, nodes = self._index, self.nodes(target)
        if not self._has_forms:
            return self._entering(nodes), nodes
        nodes = nodes | quantisation.feeding(index, nodes, quantisation.TO_INTEGERS)
        entering = self._entering(nodes)
        if len(entering) > 1 and len({quantisation.root(index, name) for name in entering}) == 1:
            nodes = nodes | quantisation.feeding(index, nodes, quantisation.PASSING)
            entering = self._entering(nodes)
        return entering, nodes

    @cached_property
    def _has_forms(self) -> bool:
        """Whether anything is quantised or cast in the model."""
        return any(node.op_type in quantisation.PASSING for node in self._index.nodes)

    def _entering(self, nodes: set[int]) -> list[str]:
        index = self._index
        names = dict.fromkeys(name for p in sorted(nodes & index.active) for name in sorted(index.reads(p)))
        entering = [
            name
            for name in names
            if self._is_activation(name)
            and index.producer.get(name) not in nodes
            and not (self._has_forms and index.producer.get(quantisation.root(index, name), -1) in nodes)
        ]
        if len(entering) > 1:
            entering = [name for name in entering if self._is_map(name)] or entering
        return entering

    def _is_activation(self, name: str) -> bool:
        index = self._index
        made = index.producer.get(name)
        return made in index.active if made is not None else name in index.inputs and name not in index.initializers

    def nodes(self, target: Target) -> set[int]:
        """Positions of the nodes in a target."""
        if target.position is not None:
            return {target.position}
        if target.block is not None:
            return set(target.block.nodes)
        return self._of_module(target.path) if target.path is not None else set()

    def _of_module(self, path: str) -> set[int]:
        if path not in self._inside:
            self._inside[path] = self.beside.without(set(self._tree.modules[path].nodes), path)
        return self._inside[path]

    def _find_leaving(self, path: str) -> list[str]:
        index = self._index
        inside = self._of_module(path)
        leaving = [
            name
            for position in self._tree.modules[path].nodes
            if position in index.active and position in inside
            for name in index.nodes[position].output
            if name in index.outputs or any(reader not in inside for reader in index.consumers.get(name, ()))
        ]
        if self._has_forms:
            leaving = self._results(leaving, inside)
        if len(leaving) > 1:  # sizes and indices leave modules too; an image-like tensor among them is what is meant
            leaving = [name for name in leaving if self._is_map(name)] or leaving
        return leaving

    def _results(self, leaving: list[str], inside: set[int]) -> list[str]:
        """One tensor for all that a module makes of one result by quantising or casting it, and from there on behind
        what every reader sees it through.
        """
        index, found = self._index, dict[str, list[str]]()
        for name in leaving:
            result = quantisation.result(index, name, inside)
            node = quantisation.made_by(index, name)
            if node is not None and node.op_type == "Cast" and not self._is_map(result):
                result = name  # an index or a mask that became a number
            found.setdefault(result, []).append(name)
        ends = [
            names[0] if len(names) == 1 and quantisation.ends_result(index, names[0]) else result
            for result, names in found.items()
        ]
        return [quantisation.outlet(index, name) for name in ends]
