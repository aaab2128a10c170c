"""Origins: where in the file the nodes of a model stand whose calls of local functions are written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import onnx

from .local_functions import Key, by_key, key_of


class Placed(NamedTuple):
    """A node, and its position in the graph or function that it stands in."""

    position: int
    node: onnx.NodeProto


class Origin(NamedTuple):
    """One node of the file, reached by calls."""

    calls: tuple[Placed, ...]
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
