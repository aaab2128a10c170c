"""Blocks in the place of something, rewritten say, that only one of two models has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from ..errors import InsertionError
from ..modelfile.model import ModelFile
from ..modelfile.record import Insertion
from .changes import Change


def blocks_changed(first: ModelFile, second: ModelFile) -> tuple[Change, ...]:
    """Each of them, by its id, and what it stands in the place of."""
    gone = [Change("removed", each.id, each.module, (each.origin,)) for each in _only_in(first, second)]
    return (*gone, *(Change("added", each.id, each.module, (each.origin,)) for each in _only_in(second, first)))


def nodes_of_blocks(first: ModelFile, second: ModelFile) -> tuple[set[int], set[int]]:
    """Indexes of the nodes in each main graph that are of such a block, or that one has replaced in the other model."""
    ours, theirs = (
        [each for each in some if each.function is None] for some in (_only_in(first, second), _only_in(second, first))
    )
    return _there(first, ours, theirs), _there(second, theirs, ours)


def _only_in(model: ModelFile, other: ModelFile) -> list[Insertion]:
    known = {each.to_entry() for each in _replacing(other)}
    return [each for each in _replacing(model) if each.to_entry() not in known]


def _replacing(model: ModelFile) -> list[Insertion]:
    """The blocks in the place of something; none where the records are damaged."""
    try:
        return [each for each in model.insertions() if each.replaced is not None]
    except InsertionError:
        return []


def _there(model: ModelFile, own: list[Insertion], others: list[Insertion]) -> set[int]:
    names = set(chain(*(each.nodes for each in own)))
    outputs = set(chain(*map(_replaced_outputs, others)))
    nodes = enumerate(model.structure.graph.node)
    return {n for n, node in nodes if node.name in names or not outputs.isdisjoint(node.output)}


def _replaced_outputs(insertion: Insertion) -> Iterator[str]:
    assert insertion.replaced is not None
    with suppress(InsertionError):  # a damaged record says nothing
        for node in insertion.replaced.graph().node:
            yield from filter(None, node.output)
