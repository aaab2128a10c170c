"""Insertions: with removal the only place where the graph of a model is changed."""

from __future__ import annotations

from .removal import remove
from .splice import Done, Planned, spliced

__all__ = ["Done", "Planned", "remove", "spliced"]
