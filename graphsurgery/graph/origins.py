"""Origins: where in the file the nodes of a model stand whose calls of local functions are written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx

from .local_functions import Key, by_key, key_of


class Placed(NamedTuple):
    """A node, and its position in the graph or function that it stands in."""

    position: int
    node: onnx.NodeProto


Calls = tuple[Placed, ...]
"""calls, each in the function of the one before; none is the main graph"""


class Origin(NamedTuple):
    """One node of the file, reached by calls."""

    calls: Calls
    """the calls that it is in, from the outside; none for a node of the main graph"""
    position: int
    """of the node among those of the graph, or of the function"""
    node: onnx.NodeProto
    """as it stands there"""

    @property
    def caller(self) -> int:
        """Index in the main graph of the node itself, or of the outermost call that it is in."""
        return self.calls[0].position if self.calls else self.position


def origins(model: onnx.ModelProto, flat: onnx.ModelProto) -> list[Origin] | None:
    """Of each node of ``flat``, which :func:`graphsurgery.graph.local_functions.written_out` made of ``model``, where
    it comes from. None where it is not what the functions of ``model`` say.
    """
    left = by_key(flat.functions)
    functions = {key: function for key, function in by_key(model.functions).items() if key not in left}
    found = [
        origin
        for index, node in enumerate(model.graph.node)
        for origin in _written_out(Origin((), index, node), functions)
    ]
    same = [origin.node.op_type for origin in found] == [node.op_type for node in flat.graph.node]
    return found if same else None


def _written_out(origin: Origin, functions: Mapping[Key, onnx.FunctionProto]) -> Iterator[Origin]:
    """The nodes that one stands for, in order: itself, or those of the function that it calls."""
    function = functions.get(key_of(origin.node))
    if function is None:
        yield origin
        return
    calls = (*origin.calls, Placed(origin.position, origin.node))
    for index, node in enumerate(function.node):
        yield from _written_out(Origin(calls, index, node), functions)


Place = tuple[int, ...]
"""positions of calls, each in the function of the one before; none is the main graph"""


def place_of(calls: Calls) -> Place:
    """Where some calls lead."""
    return tuple(call.position for call in calls)


def inner_names(
    model: onnx.ModelProto, flat: onnx.ModelProto, origins: Sequence[Origin]
) -> dict[Place, dict[str, str]]:
    """What tensors are called where the calls are written out: place -> name there -> name in ``flat``."""
    functions = by_key(model.functions)
    every = {place_of(run): run for each in origins for run in runs(each.calls)}
    names: dict[Place, dict[str, str]] = {place: {} for place in ((), *every)}
    for node, origin in zip(flat.graph.node, origins, strict=True):
        names[place_of(origin.calls)].update(zip(origin.node.output, node.output, strict=False))
    names[()].update({value.name: value.name for value in flat.graph.input})
    names[()].update({tensor.name: tensor.name for tensor in flat.graph.initializer})
    for place in sorted(every, key=len, reverse=True):  # what functions give
        call = every[place][-1].node
        for actual, formal in zip(call.output, functions[key_of(call)].output, strict=False):
            if actual and formal in names[place]:
                names[place[:-1]].setdefault(actual, names[place][formal])
    for place in sorted(every, key=len):  # what they are given
        call = every[place][-1].node
        for actual, formal in zip(call.input, functions[key_of(call)].input, strict=False):
            if actual in names[place[:-1]]:
                names[place].setdefault(formal, names[place[:-1]][actual])
    return names


def runs(calls: Calls) -> list[Calls]:
    """The calls up to the first, the second and so on."""
    return [calls[: depth + 1] for depth in range(len(calls))]
