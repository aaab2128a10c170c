"""StandingBlock: a block that stands in a model, however it came there: inserted, rewritten, in the place of something
else, or written by an exporter and found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..feature_map import Dimension
from ..messages import attributes

if TYPE_CHECKING:
    from ..graph.index import GraphIndex
    from ..modelfile.record import Insertion

INSERTED, REWRITTEN, IN_PLACE, FOUND = "inserted", "rewritten", "in place", "found"
"""how a block came there"""


@dataclass(frozen=True)
class StandingBlock:
    """One block in one model."""

    id: str
    """of the insertion; of a found one its place"""
    origin: str
    """"inserted", "rewritten", "in place" or "found" """
    module: str | None
    """with its variant; None for what is like no block of the catalogue"""
    settings: Mapping[str, Any]
    place: str
    """the module or tensor that it is after, before, or in the place of; of a found one a selector of itself"""
    reads: str
    tensor: str
    """what leaves it"""
    shape: tuple[Dimension, ...]
    nodes: int
    """constants apart"""
    before: int | None = None
    """of one that stands in the place of something: how many nodes that had"""
    proven: bool | None = None
    """of a found one, whether it is the block in numbers"""
    function: tuple[str, ...] | None = None
    """the local function that it is in"""
    parameters: int | None = None
    members: frozenset[int] = field(default=frozenset(), compare=False, repr=False)
    """indexes of its nodes"""

    @property
    def is_part(self) -> bool:
        """Whether it is a part of the network as its author meant it, or stands for one; others were added to it."""
        return self.origin != INSERTED

    @property
    def was_found(self) -> bool:
        """Whether an exporter wrote it."""
        return self.origin == FOUND

    @property
    def said(self) -> str:
        """How it came there, in words; "" for what was inserted."""
        if self.origin == FOUND:
            nodes = f"{_counted(self.nodes)}, " if self.nodes else ""
            return f"found: {nodes}{'proven' if self.proven else 'alike'}"
        if self.before is None:
            return ""
        verb = "rewritten from" if self.origin == REWRITTEN else "in place of"
        return f"{verb} {_counted(self.before)}"

    def __str__(self) -> str:
        """``model.8.simam``, ``model.8.se: rewritten from 8 nodes``, ``model.8.se: found: 8 nodes, proven``."""
        return f"{self.id}: {self.said}" if self.said else self.id

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        found = attributes(self, "id", "origin", "module", "settings", "place", "reads", "tensor", "shape")
        return {**found, **attributes(self, "nodes", "before", "proven", "function")}


def of_insertion(insertion: Insertion, index: GraphIndex) -> StandingBlock:
    """A block with a record."""
    site, replaced = insertion.site, insertion.replaced
    names = insertion.nodes if insertion.function == index.model.function else ()
    origin = INSERTED if replaced is None else REWRITTEN if replaced.same else IN_PLACE
    return StandingBlock(
        id=insertion.id,
        origin=origin,
        module=insertion.module,
        settings=insertion.settings,
        place=site.path or f"tensor:{site.tensor}",
        reads=site.tensor,
        tensor=insertion.output_tensor,
        shape=site.shape,
        nodes=len(insertion.nodes),
        before=replaced.nodes if replaced else None,
        function=insertion.function,
        parameters=insertion.parameters,
        members=frozenset(n for name in names for n in index.node_names.get(name, ())),
    )


def _counted(nodes: int) -> str:
    return f"{nodes} node{'' if nodes == 1 else 's'}"
