"""RecognisedBlock: one recognised block of a model, with its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RecognisedBlock:
    """One recognised block of a model."""

    type: str
    aliases: tuple[str, ...]
    """other names of the same structure: CSPLayer for C3"""
    entries: tuple[str, ...]
    """the activations that enter it"""
    output: str
    """the tensor that leaves it; downstream of the DequantizeLinear in a quantised model"""
    nodes: frozenset[int]
    """indices of its nodes in the main graph"""
    parts: tuple[tuple[str, RecognisedBlock], ...] = ()
    """named inner blocks, in the order of the graph: ("cv1", block), ("m.0", block)"""
    path: str | None = None
    """dotted module path where the model's names show it"""
    facts: Mapping[str, object] = field(default_factory=dict)
    """what a pattern knows of itself: kernel, stride, channels_in, channels_out, groups, activation of a convolution"""
    root: str = ""
    """the tensor that leaves it, before what only passes it on"""
    role: str | None = None
    """backbone, neck or head"""

    def of_type(self, type: str, aliases: tuple[str, ...], facts: Mapping[str, object]) -> RecognisedBlock:
        """The same nodes as a block of a type."""
        entries, nodes, parts = self.entries, self.nodes, self.parts
        return RecognisedBlock(
            type, aliases, entries, self.output, nodes, parts, self.path, facts, self.root, self.role
        )

    def labelled(
        self, parts: tuple[tuple[str, RecognisedBlock], ...], path: str | None, role: str | None
    ) -> RecognisedBlock:
        """The same with parts that are labelled, and where it is."""
        entries, nodes, facts = self.entries, self.nodes, self.facts
        return RecognisedBlock(
            self.type, self.aliases, entries, self.output, nodes, parts, path, facts, self.root, role
        )

    def everything(self) -> Iterator[RecognisedBlock]:
        """The block and all blocks in it, a part before what it is a part of."""
        for _, part in self.parts:
            yield from part.everything()
        yield self
