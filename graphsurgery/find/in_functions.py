"""Attention in models with local functions: looked for with the calls written out, and told of the file.

A part that consists of whole calls stands in the graph, or the function, that has these calls; any other in the
function whose nodes it has. What begins in one function and ends in another has no place of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..graph.index import GraphIndex
from ..graph.local_functions import Key, by_key, key_of
from ..graph.origins import Calls, inner_names, origins, place_of, runs
from ..graph.part import Part
from ..graph.written_out import without_calls
from ..modelfile.model import ModelFile
from .found import Found


def has_calls(model: ModelFile) -> bool:
    """Whether a model calls local functions."""
    functions = by_key(model.structure.functions)
    return bool(functions) and any(key_of(node) in functions for node in model.structure.graph.node)


def found_in_functions(model: ModelFile, find: Callable[[ModelFile], list[Found]]) -> list[Found]:
    """What is found in a model where its calls are written out, in terms of the file.

    ``find``: finds in a model without calls. ModelError where they cannot be written out.
    """
    flat = without_calls(model, always=True)
    return _File(model, flat).told(find(flat))


class _File:
    """A model, and where in it the nodes stand that it has with its calls written out."""

    def __init__(self, model: ModelFile, flat: ModelFile) -> None:
        whole = model.structure
        self._origins = origins(whole, flat.structure) or ()
        index = GraphIndex(flat)
        self._working = index.active & {each for name in index.outputs for each in index.ancestors(name)}
        names = inner_names(whole, flat.structure, self._origins)
        self._names = {place: {inner: name for name, inner in known.items()} for place, known in names.items()}
        places = {(key_of(run[-1].node), place_of(run)) for each in self._origins for run in runs(each.calls)}
        self._calls = {key: sum(of == key for of, _ in places) for key, _ in places}

    def told(self, found: Sequence[Found]) -> list[Found]:
        """Each in its graph or function; what calls of one function have alike, once."""
        groups: dict[tuple[object, ...], list[Found]] = {}
        for each in found:
            part = self._placed(each.part)
            if part is None:
                note = _joined(each.note, "it begins in one local function and ends in another")
                part = replace(each.part, nodes=())
                groups[len(groups),] = [replace(each, part=part, proven=False, note=note)]
            else:
                place = f"tensor:{part.output}" if each.place.startswith("tensor:") else each.place
                groups.setdefault((part.function, part.nodes), []).append(replace(each, part=part, place=place))
        return [self._one(group) for group in groups.values()]

    def _one(self, group: Sequence[Found]) -> Found:
        first = group[0]
        if (function := first.part.function) is None:
            return first
        note = f"it stands in the local function {function[1]!r}"
        calls = self._calls[_key(function)]
        if calls > 1:
            note += f", which is called {calls} times"
        if len(group) < calls or not all(_same(first, other) for other in group[1:]):
            return replace(first, proven=False, note=_joined(first.note, f"{note}, with other weights or maps"))
        return replace(first, note=_joined(first.note, note))

    def _placed(self, part: Part) -> Part | None:
        """The same in the outermost graph or function of which it has whole nodes; None where there is none."""
        calls = [self._origins[each].calls for each in part.nodes]
        shared = _shared(calls)
        for depth in range(len(shared) + 1):
            level = shared[:depth]
            nodes = {self._position(each, depth) for each in part.nodes}
            if not self._within(level, nodes) - set(part.nodes):
                names = self._names[place_of(level)]
                function = key_of(level[-1].node) if level else None
                known = part.input in names and part.output in names
                ends = replace(part, input=names.get(part.input, ""), output=names.get(part.output, ""))
                return replace(ends, nodes=tuple(sorted(nodes)), function=function) if known else None
        return None

    def _position(self, node: int, depth: int) -> int:
        """Where a node, or the call that it is in, stands in a graph or function that is so deep."""
        origin = self._origins[node]
        return origin.calls[depth].position if len(origin.calls) > depth else origin.position

    def _within(self, level: Calls, positions: set[int]) -> set[int]:
        """The nodes that count in some nodes of a graph or function."""
        return {
            each
            for each in self._working
            if place_of(self._origins[each].calls[: len(level)]) == place_of(level)
            and self._position(each, len(level)) in positions
        }


def _shared(calls: Sequence[Calls]) -> Calls:
    """The calls that all begin with."""
    shared = calls[0]
    for each in calls[1:]:
        depth = 0
        while depth < min(len(shared), len(each)) and place_of(shared[: depth + 1]) == place_of(each[: depth + 1]):
            depth += 1
        shared = shared[:depth]
    return shared


def _same(one: Found, other: Found) -> bool:
    """Whether two are the same block on maps of the same size, with the same weights."""
    if one.block is None or other.block is None or one.proven != other.proven:
        return False
    alike = (one.block.spelled, dict(one.block.values), one.part.feature) == (
        other.block.spelled,
        dict(other.block.values),
        replace(other.part.feature, label=one.part.feature.label),
    )
    return alike and all(np.array_equal(values, other.weights[key]) for key, values in one.weights.items())


def _key(function: tuple[str, ...]) -> Key:
    domain, name, overload = function
    return domain, name, overload


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))
