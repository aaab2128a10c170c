"""Enlarging: the nodes from which on a network is a neck, since they make its maps larger or encode them.

A backbone of two (CBNet, YOLOv9-E) makes maps larger, too: those of the first, for the second. The second begins at the
image anew and becomes as deep as the first. What it joins with enlarged maps on the way is no neck.
"""

from __future__ import annotations

from collections.abc import Mapping

from .block import RecognisedBlock
from .extent import Extent
from .graph_view import View
from .input_images import CONVOLUTIONS, POOLS
from .strides import Stride, Strides
from .tokens import is_patch_embedding

_ENCODERS = ("AIFI",)
_ENLARGING = frozenset({"Resize", "ConvTranspose", "DepthToSpace"})
_GATING = frozenset({"Sigmoid", "HardSigmoid"})
_BEGINNING = CONVOLUTIONS | POOLS


def downstream_of_enlarged(view: View, strides: Strides, extents: Mapping[int, Extent]) -> set[int]:
    """All that is downstream of what makes the network's maps larger, or of an encoder layer."""
    found, convolved, again = set[int](), set[int](), _for_second_backbone(view, strides)
    for node_index in view.order:
        extent = extents[node_index]
        block = extent.block
        sources = {view.producer(name) for name in view.inputs(node_index)}
        if sources & convolved or extent.fact("kernel") or (block is not None and block.parts):
            convolved.add(node_index)
        starts = _enlarges(view, node_index) and bool(sources & convolved) and node_index not in again
        starts = starts or (block is not None and block.type in _ENCODERS and not _is_backbone(view, strides, block))
        if starts or sources & found:
            found |= extent.nodes
    return found


def _is_backbone(view: View, strides: Strides, encoder: RecognisedBlock) -> bool:
    """Whether an encoder reads patches of the image."""
    return all(is_patch_embedding(view, strides, entry) for entry in encoder.entries)


def _enlarges(view: View, node_index: int) -> bool:
    """Whether a node makes a map larger, other than for a gate."""
    following = set(map(view.op, view.downstream(node_index)))
    return view.op(node_index) in _ENLARGING and (not following or not following <= _GATING)


def _for_second_backbone(view: View, strides: Strides) -> set[int]:
    """The nodes that make maps larger for a backbone that begins at the image anew."""
    begun = _beginnings(view, strides)
    if max(begun.values(), default=0).bit_count() < 2:
        return set()
    alike: dict[tuple[int, Stride], list[int]] = {}
    """beginnings, stride -> the nodes that enlarge a map of that stride that is computed from these beginnings alone"""
    for node_index in view.order:
        source = strides.origin(view.inputs(node_index)[0]) if view.op(node_index) in _ENLARGING else None
        if source is not None:
            alike.setdefault((begun[node_index], source), []).append(node_index)
    return {
        node_index
        for (own, depth), nodes in alike.items()
        if _goes_as_deep(view, strides, nodes, {p for p in view.active if begun[p] & ~own}, depth)
        for node_index in nodes
    }


def _beginnings(view: View, strides: Strides) -> dict[int, int]:
    """Each node -> the convolutions and poolings of the image that it is computed from, one bit each."""
    found: dict[int, int] = {}
    count = 0
    for node_index in view.order:
        bits = 0
        for name in view.inputs(node_index):
            producer = view.producer(name)
            bits |= found.get(producer, 0) if producer is not None else 0
        if view.op(node_index) in _BEGINNING and strides.is_image(view.inputs(node_index)[0]):
            bits |= 1 << count
            count += 1
        found[node_index] = bits
    return found


def _goes_as_deep(view: View, strides: Strides, nodes: list[int], others: set[int], depth: Stride) -> bool:
    """Whether what nodes compute is joined with what others do, and gets to a stride again."""
    pending, seen = list(nodes), set(nodes)
    while pending:
        node_index = pending.pop()
        if node_index in others and any(strides.origin(name) == depth for name in view.outputs(node_index)):
            return True
        further = view.downstream(node_index) - seen
        seen |= further
        pending += further
    return False
