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
        rows = [(view.op(node), view.inputs(node), view.outputs(node)) for node in view.order]
        numbers = {name: self._number((op, None)) for op, _, outputs in rows for name in outputs}
        for depth in range(1, _LARGEST_DEPTH + 1):
            shallower, numbers = numbers, {}
            for op, inputs, outputs in rows:
                number = self._number((op, tuple([shallower.get(name, _NO_NODE) for name in inputs])))
                numbers.update(dict.fromkeys(outputs, number))
            if depth >= _DEPTH and len(set(numbers.values())) * _REPEATED > len(numbers):
                break
        self._numbers = numbers

    def number(self, tensor: str) -> int:
        """The number of a tensor's surroundings."""
        return self._numbers.get(tensor, _NO_NODE)

    def __getitem__(self, number: int) -> Neighbourhood:
        return self._listed[number]

    def _number(self, neighbourhood: Neighbourhood) -> int:
        number = self._known.setdefault(neighbourhood, len(self._listed))
        if number == len(self._listed):
            self._listed.append(neighbourhood)
        return number
