"""Find: the attention in a model that an exporter wrote, and the proof of what it is."""

from __future__ import annotations

from .finding import find
from .found import Found, standing_block

__all__ = ["Found", "find", "standing_block"]
