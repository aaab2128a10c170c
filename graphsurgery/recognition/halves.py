"""Halves: which nodes take the first or the second half of the channels out of a tensor, by Split or by Slice."""

from __future__ import annotations

from .graph_view import View


class Halves:
    """The halves of the tensors of one graph."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._ends: dict[str, set[int | str | None]] = {}
        """tensor -> where the Slices end that take its first channels"""

    def taken_by(self, tensor: str, index: int) -> tuple[int, ...]:
        """Positions of the nodes that make a tensor by taking this half out of another, the one that reads it last."""
        view, position = self._view, self._view.producer(tensor)
        if position is None or position not in view.active or len(view.inputs(position)) != 1:
            return ()
        node = view.index.nodes[position]
        if node.op_type == "Split":
            outputs = view.outputs(position)
            right = len(outputs) == 2 and outputs.index(tensor) == index and self._are_equal(position)
            return (position,) if right and view.integer(position, "axis", 0) in (1, -3) else ()
        if node.op_type == "Slice":
            return (position,) if self._is_half(position, index) else ()
        if node.op_type == "SequenceAt":  # torch's exporter before it has optimised
            split, place = view.producer(view.inputs(position)[0]), view.constant(node.input[1])
            if split is None or view.op(split) != "SplitToSequence" or view.integer(split, "axis", 0) != 1:
                return ()
            return (position, split) if place is not None and int(place) == index else ()
        return ()

    def _are_equal(self, position: int) -> bool:
        """Whether the parts of a Split into two have one size."""
        view, node = self._view, self._view.index.nodes[position]
        given = view.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        sizes = view.integers(position, "split") if given is None else tuple(int(size) for size in given.ravel())
        return len(set(sizes)) <= 1

    def _is_half(self, position: int, index: int) -> bool:
        """Whether a Slice takes the first (0) or the second (1) half of the channels: from where another one ends."""
        axes, first, last = self._slice(position)
        if axes not in ((1,), (-3,)) or (first == 0) != (index == 0):
            return False
        if index == 0:
            return True
        view = self._view
        if isinstance(first, int) and isinstance(last, int) and last not in (2 * first, -1) and last < 2**31 - 1:
            return False
        source = view.inputs(position)[0]
        if source not in self._ends:
            slices = [self._slice(r) for r in view.readers(source) if view.index.nodes[r].op_type == "Slice"]
            self._ends[source] = {end for _, start, end in slices if start == 0}
        return first in self._ends[source]

    def _slice(self, position: int) -> tuple[tuple[int, ...], int | str | None, int | str | None]:
        """(axes, start, end) of a Slice along one axis without steps; the name of the tensor where one is computed."""
        view, node = self._view, self._view.index.nodes[position]
        if len(node.input) < 3:  # before opset 10
            starts, ends = view.integers(position, "starts"), view.integers(position, "ends")
            return view.integers(position, "axes"), starts[0] if starts else None, ends[0] if ends else None
        axes = view.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
        steps = view.constant(node.input[4]) if len(node.input) > 4 and node.input[4] else None
        if axes is None or (steps is not None and (steps != 1).any()):
            return (), None, None
        return tuple(int(axis) for axis in axes.ravel()), self._limit(node.input[1]), self._limit(node.input[2])

    def _limit(self, name: str) -> int | str:
        """The value of a limit; its tensor's name where it is computed."""
        value = self._view.constant(name)
        return self._view.root(name) if value is None or not value.size else int(value.ravel()[0])
