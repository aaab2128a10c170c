"""Halves: the tensors that are the first or the second half of another one's channels, by Split or by Slice."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .graph_view import View

HALVING = frozenset({"Split", "Slice", "SequenceAt"})
"""operators that produce halves"""
_CHANNELS = (1, -3)
_TO_THE_END = 2**31 - 1
"""the smallest of the numbers that exporters write for it, besides -1"""

_Limit: TypeAlias = int | str | None
"""where a Slice starts or ends; the name of the tensor where that is computed"""


class ChannelHalf(NamedTuple):
    """Where a half was taken from."""

    source: str
    which: int
    """0: the first half, 1: the second one"""
    nodes: frozenset[int]
    """indices of the nodes that take it"""


def find_halves(view: View) -> dict[str, ChannelHalf]:
    """All halves in a graph, by tensor."""
    found: dict[str, ChannelHalf] = {}
    slices: list[tuple[int, str, _Limit, _Limit]] = []
    for node_index in view.order:
        outputs, sources = view.outputs(node_index), view.inputs(node_index)
        if len(sources) != 1 or not outputs:
            continue
        match view.op(node_index):
            case "Split" if len(outputs) == 2 and view.axis(node_index, 0) in _CHANNELS:
                if len(set(view.given(node_index, 1, "split"))) <= 1:
                    nodes = frozenset({node_index})
                    found |= {name: ChannelHalf(sources[0], index, nodes) for index, name in enumerate(outputs)}
            case "SequenceAt":  # torch's exporter before it has optimised
                split, places = view.producer(sources[0]), view.given(node_index, 1)
                if not places or split is None or view.op(split) != "SplitToSequence" or not view.inputs(split):
                    continue
                if view.axis(split, 0) == 1:
                    nodes = frozenset({node_index, split})
                    found[outputs[0]] = ChannelHalf(view.inputs(split)[0], int(places[0]), nodes)
            case "Slice" if _takes_channels(view, node_index):
                limits = (_limit(view, node_index, 1, "starts"), _limit(view, node_index, 2, "ends"))
                slices.append((node_index, sources[0], *limits))
    firsts = {(source, end) for _, source, start, end in slices if start == 0}
    for node_index, source, start, end in slices:
        if start == 0 or ((source, start) in firsts and _ends_with_the_channels(start, end)):
            half = ChannelHalf(source, int(start != 0), frozenset({node_index}))
            found[view.outputs(node_index)[0]] = half
    return found


def _takes_channels(view: View, node_index: int) -> bool:
    """Whether a Slice goes along the channels alone, without steps."""
    axes, steps = view.axes(node_index, view.given(node_index, 3, "axes")), view.given(node_index, 4)
    return len(axes) == 1 and axes[0] in _CHANNELS and set(steps) <= {1}


def _ends_with_the_channels(start: _Limit, end: _Limit) -> bool:
    """Whether a Slice from the middle can go to the end, as far as its limits are known."""
    if not isinstance(start, int) or not isinstance(end, int):
        return True
    return end in (2 * start, -1) or end >= _TO_THE_END


def _limit(view: View, node_index: int, place: int, attribute: str) -> _Limit:
    given, node = view.given(node_index, place, attribute), view.index.nodes[node_index]
    if given:
        return int(given[0])
    return view.root(node.input[place]) if len(node.input) > place else None
