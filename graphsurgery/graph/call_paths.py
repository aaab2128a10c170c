"""Module paths through calls: the names of nodes whose calls are written out tell the calls that they were in.

What is called ``/conv/Conv`` in a function that ``/model.4/Stage`` calls is in the module ``model.4.conv``. Exporters
name the nodes of a function relative to the module, or as they were in the first module that became a call of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, count
from typing import TypeAlias

import onnx

from .local_functions import Key, key_of
from .module_paths import NAMING, from_metadata, join
from .origins import Calls, Origin, Place, place_of, runs

Inserted: TypeAlias = Collection[tuple[Key | None, str]]
"""function, None for the main graph, and name of the nodes of inserted blocks"""


def name_by_path(flat: onnx.ModelProto, origins: Sequence[Origin], inserted: Inserted) -> None:
    """Rename the nodes of ``flat`` that were in calls, so that their names tell their module paths."""
    paths, taken = (
        _CallPaths(origins, inserted),
        {node.name for node, origin in zip(flat.graph.node, origins, strict=True) if not origin.calls},
    )
    for node, origin in zip(flat.graph.node, origins, strict=True):
        if origin.calls:
            last = origin.node.name.rpartition("/")[2] or origin.node.op_type
            scopes = [*paths.of_call(origin.calls), *paths.within(origin.calls[-1].node, origin.node)]
            wish = "/".join(["", *scopes, last])
            node.name = next(name for name in chain([wish], map(f"{wish}__{{}}".format, count(1))) if name not in taken)
            taken.add(node.name)
            kept = [entry for entry in node.metadata_props if entry.key not in NAMING]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)


class _CallPaths:
    """The scopes that calls stand for."""

    def __init__(self, origins: Sequence[Origin], inserted: Inserted) -> None:
        every = {place_of(run): run for each in origins for run in runs(each.calls)}
        calls = {place: run[-1].node for place, run in every.items()}
        self._alike = Counter((place[:-1], tuple(_scopes(call))) for place, call in calls.items())
        self._prefixes: dict[Key, set[str]] = {}
        """of each function, the paths of its calls: its nodes can be named as if they were in one of these"""
        for call in calls.values():
            self._prefixes.setdefault(key_of(call), set()).add(join(_scopes(call)))
        self._numbers = _numbers(calls, origins, inserted)
        self._known: dict[Place, list[str]] = {(): []}
        for run in sorted(every.values(), key=len):
            self._prefixes[key_of(run[-1].node)].add(join(self.of_call(run)))  # as inserted blocks are named

    def of_call(self, calls: Calls) -> list[str]:
        """The scopes of the last of some calls, each of which is in the one before."""
        place = place_of(calls)
        if place not in self._known:
            outer, call = calls[:-1], calls[-1].node
            named = _scopes(call)
            own = self.within(outer[-1].node, call) if outer else named
            if not named or self._alike[place[:-1], tuple(named)] > 1:
                own = [*own, call.name.rpartition("/")[2] or f"{call.op_type}#{self._numbers[place]}"]
            self._known[place] = [*self.of_call(outer), *own]
        return self._known[place]

    def within(self, call: onnx.NodeProto, node: onnx.NodeProto) -> list[str]:
        """The scopes of a node of the function that is called, relative to the call."""
        own = _scopes(node)
        path = join(own)
        prefixes = (each for each in self._prefixes[key_of(call)] if each and f"{path}.".startswith(f"{each}."))
        prefix = max(prefixes, key=len, default="")
        if not prefix:
            return own
        for depth in range(1, len(own) + 1):
            if join(own[:depth]) == prefix:
                return own[depth:]
        return [path[len(prefix) + 1 :]]


def _numbers(calls: Iterable[Place], origins: Sequence[Origin], inserted: Inserted) -> dict[Place, int]:
    """Which node of its function, or of the main graph, each call is, inserted ones not counted: they come and go."""
    there: dict[Place, set[int]] = {}
    for calls_around, position, node in origins:
        function = key_of(calls_around[-1].node) if calls_around else None
        if (function, node.name) in inserted:
            there.setdefault(place_of(calls_around), set()).add(position)
    return {place: place[-1] - sum(position < place[-1] for position in there.get(place[:-1], ())) for place in calls}


def _scopes(node: onnx.NodeProto) -> list[str]:
    """The scopes around a node, as its metadata or its name tells them."""
    stated = from_metadata(node) if node.metadata_props else None
    if stated and stated[0]:
        return [stated[0]]
    return [scope for scope in node.name.split("/")[:-1] if scope]
