"""Recognition: the blocks of a detector, found by structure."""

from __future__ import annotations

from .blocktree import BlockTree, recognise
from .found import Found
from .pattern import HeadPattern, Pattern

__all__ = ["BlockTree", "Found", "HeadPattern", "Pattern", "recognise"]
