"""Borders: the tensors that leave and enter what a selector names, and the nodes in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ..errors import option
from ..graph import quantisation
from ..modelfile.operators import operator
from .branches import Branches
from .context import Context
from .text import Text

if TYPE_CHECKING:
    from ..recognition import RecognisedBlock


class Target(NamedTuple):
    """One thing that a selector names."""

    label: str
    """how messages call it"""
    written: Text
    """the part of the selector that names it"""
    tensor: str | None = None
    node_index: int | None = None
    path: str | None = None
    block: RecognisedBlock | None = None
    is_output: bool = False
    note: str = ""
    """what is to be said of it"""


class Borders:
    """The borders of modules, blocks and nodes in one model."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._index = context.index
        self.branches = Branches(context.index)
        self._leaving: dict[str, list[str]] = {}
        self._inside: dict[str, set[int]] = {}

    def leaving(self, path: str) -> str:
        """The tensor that leaves a module; "" without exactly one."""
        leaving = self.leaving_tensors(path)
        return leaving[0] if len(leaving) == 1 else ""

    def leaving_tensors(self, path: str) -> list[str]:
        """The tensors that depend on the model's input, are produced in the module and consumed outside of it."""
        if path not in self._leaving:
            index, inside = self._index, self._of_module(path)
            leaving = [
                name
                for node_index in self._context.tree.modules[path].nodes
                if node_index in index.active and node_index in inside
                for name in index.named_outputs[node_index]
                if name in index.outputs or not inside.issuperset(index.consumers.get(name, ()))
            ]
            self._leaving[path] = self._maps_first(self._results(leaving, inside))
        return self._leaving[path]

    def outgoing(self, target: Target) -> list[str]:
        """The tensors that leave a target."""
        if target.tensor is not None:
            return [target.tensor]
        if target.block is not None:
            return [target.block.output]
        if target.path is not None:
            return self.leaving_tensors(target.path)
        assert target.node_index is not None
        outputs = self._index.nodes[target.node_index].output
        return [name for name in outputs if name in self._index.consumers or name in self._index.outputs]

    def entering(self, target: Target) -> tuple[list[str], set[int]]:
        """The tensors that depend on the model's input, are produced outside of the target and consumed in it, and the
        nodes that can read them there.

        To these belong the nodes upstream of the target that quantise for it alone, and, where one tensor enters it in
        several forms, those that produce the forms of it. SelectorError for a tensor, which nothing enters.
        """
        if target.tensor is not None:
            raise target.written.error(
                f"{target.label} is no module, so there is nothing in front of it; use {option('after')}, with "
                f"{option('consumers')} for some of its consumers only"
            )
        index, nodes = self._index, self.nodes(target)
        nodes = nodes | quantisation.feeding(index, nodes, quantisation.TO_INTEGERS)
        entering = self._entering(nodes)
        if len(entering) > 1 and len(set(map(self._context.layouts.root, entering))) == 1:
            nodes = nodes | quantisation.feeding(index, nodes, quantisation.PASSING)
            entering = self._entering(nodes)
        return entering, nodes

    def _entering(self, nodes: set[int]) -> list[str]:
        index = self._index
        names = dict.fromkeys(name for n in sorted(nodes & index.active) for name in sorted(index.reads(n)))
        return self._maps_first(
            name
            for name in names
            if index.is_activation(name)
            and index.producer.get(name) not in nodes
            and index.producer.get(self._context.layouts.root(name)) not in nodes
        )

    def nodes(self, target: Target) -> set[int]:
        """The indexes of the nodes in a target."""
        if target.node_index is not None:
            return {target.node_index}
        if target.block is not None:
            return set(target.block.nodes)
        return self._of_module(target.path) if target.path is not None else set()

    def _of_module(self, path: str) -> set[int]:
        if path not in self._inside:
            self._inside[path] = self.branches.without(set(self._context.tree.modules[path].nodes), path)
        return self._inside[path]

    def _maps_first(self, names: Iterable[str]) -> list[str]:
        """Of several tensors the image-like ones, if there are any, in whatever layout: sizes and indices cross borders
        too.
        """
        context, names = self._context, list(names)
        if len(names) < 2:
            return names
        return [name for name in names if context.is_map(name) or context.layouts.foreign(name)] or names

    def _results(self, leaving: list[str], inside: set[int]) -> list[str]:
        """One tensor for all that a module gives of one result by quantising or casting it, and from there on the one
        through which all its consumers see it.
        """
        index, forms = self._index, dict[str, list[str]]()
        for name in leaving:
            result = self._result(name, inside)
            producer = index.producing(name)
            if producer is not None and operator(producer) == "Cast" and not self._context.is_map(result):
                result = name  # an index or a mask that became a number
            forms.setdefault(result, []).append(name)
        ends = [
            names[0] if len(names) == 1 and quantisation.ends_result(index, names[0]) else result
            for result, names in forms.items()
        ]
        return [self._context.layouts.outlet(name) for name in ends]

    def _result(self, name: str, inside: set[int]) -> str:
        """The tensor that a module gives in the form of this one: before it is quantised, cast or no longer NCHW."""
        result = quantisation.result(self._index, name, inside)
        layouts = self._context.layouts
        upstream = layouts.upstream_map(result) if layouts.foreign(result) else None
        if upstream is None or self._index.producer.get(upstream) not in inside:
            return result
        own = inside.intersection(self._index.consumers[upstream]) - {self._index.producer[result]}
        return result if own else self._result(upstream, inside)
