"""The catalogue described: facts, cards and the table of blocks."""

from __future__ import annotations

from .cards import Card, block, blocks

__all__ = ["Card", "block", "blocks"]
