"""Surroundings: a number for each tensor, the same for tensors with the same operators a few nodes upstream.

Large graphs repeat themselves, so that what can be said of a tensor's surroundings has to be found once for many
tensors. The more a graph repeats itself, the deeper the look.
"""

from __future__ import annotations

from typing import TypeAlias

from .graph_view import View

_DEPTH = 3
"""nodes upstream of the one that produces a tensor"""
_LARGEST_DEPTH = 7
_REPEATED = 50
"""tensors for each number, on average, for more depth to be worth its time"""
_NO_NODE = 0
"""the number of tensors that no node of the network produces"""

Neighbourhood: TypeAlias = tuple[str, tuple[int, ...] | None]
"""an operator, and the numbers of what it reads; None where that was not looked at"""


class Surroundings:
    """The surroundings of all tensors of a graph. ``surroundings[number]`` is what a number stands for."""

    def __init__(self, view: View) -> None:
        self._known: dict[Neighbourhood, int] = {}
        self._listed: list[Neighbourhood] = [("", ())]
        self._place = {name: place for place, node in enumerate(view.order, 1) for name in view.outputs(node)}
        """tensor -> the place, from 1, of the node that produces it"""
        operators = [view.op(node) for node in view.order]
        sources = [[self._place.get(name, 0) for name in view.inputs(node)] for node in view.order]
        self._numbers = [_NO_NODE, *(self._number((op, None)) for op in operators)]
        """by place; of all outputs of a node"""
        for depth in range(1, _LARGEST_DEPTH + 1):
            at = self._numbers.__getitem__
            numbers = [self._number((op, tuple(map(at, read)))) for op, read in zip(operators, sources, strict=True)]
            self._numbers = [_NO_NODE, *numbers]
            if depth >= _DEPTH and len(set(numbers)) * _REPEATED > len(self._place):
                break

    def number(self, tensor: str) -> int:
        """The number of a tensor's surroundings."""
        return self._numbers[self._place.get(tensor, 0)]

    def __getitem__(self, number: int) -> Neighbourhood:
        return self._listed[number]

    def _number(self, neighbourhood: Neighbourhood) -> int:
        number = self._known.get(neighbourhood)
        if number is None:
            number = self._known[neighbourhood] = len(self._listed)
            self._listed.append(neighbourhood)
        return number
