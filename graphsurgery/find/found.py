"""Found: attention that stands in a model as an exporter wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..blocks.block import Block
from ..feature_map import Array
from ..graph.part import Part
from ..messages import listed
from ..outline.standing import FOUND, StandingBlock


@dataclass(frozen=True)
class Found:
    """One part of a model, and the block that it is or is like."""

    place: str
    """a selector that names it: a module path where names tell, else ``tensor:NAME`` of what leaves"""
    part: Part
    block: Block | None
    """with its variant and settings; None where it is none of the catalogue"""
    weights: Mapping[str, Array] = field(default_factory=dict, repr=False)
    """official key -> float64 array, read out of the part; nothing where the part is not proven"""
    proven: bool = False
    """whether the part agrees with the block's PyTorch module in numbers"""
    max_error: float | None = None
    """the largest absolute error of that comparison; None where there was none"""
    findings: tuple[str, ...] = ()
    """what is bad about the form that the exporter gave it"""
    note: str = ""
    """what it is in words, where it is no proven block, and whatever else there is to say"""
    equals: tuple[str, ...] = ()
    """other blocks of the catalogue that are the same function with these weights: the one that people ask for most is
    named
    """

    @property
    def said(self) -> str:
        """The note, and which other blocks it could be called."""
        if not self.equals:
            return self.note
        assert self.block is not None
        others = f"{listed(self.equals, last=' and')} would be the same function here"
        first = self.block.name == self.equals[0].partition("[")[0]
        why = f"{self.block.spelled} comes first" if first else f"{self.block.name} is asked for most"
        return "; ".join(filter(None, (self.note, others, why)))

    def to_dict(self) -> dict[str, Any]:
        """The object that ``find --json`` lists."""
        return {
            "place": self.place,
            "module": self.block.spelled if self.block else None,
            "settings": dict(self.block.values) if self.block else {},
            "proven": self.proven,
            "max_error": self.max_error,
            "nodes": len(self.part.nodes),
            "findings": list(self.findings),
            "note": self.said,
        }


def standing_block(found: Found) -> StandingBlock:
    """What was found, as the listing of all blocks of a model has it."""
    part, block = found.part, found.block
    return StandingBlock(
        id=found.place,
        origin=FOUND,
        module=block.spelled if block else None,
        settings=block.recorded_values() if block else {},
        place=found.place,
        reads=part.input,
        tensor=part.output,
        shape=part.shape,
        nodes=len(part.nodes),
        proven=found.proven,
        function=part.function,
        parameters=sum(each.size for each in found.weights.values()) if found.proven else None,
        members=frozenset(part.nodes) if part.function is None else frozenset(),
    )
