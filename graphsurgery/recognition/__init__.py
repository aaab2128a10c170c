"""Recognition: the blocks of a detector, found by structure."""

from __future__ import annotations

from .block import Found
from .blocktree import BlockTree, recognise
from .pattern import HeadPattern, Pattern

__all__ = ["BlockTree", "Found", "HeadPattern", "Pattern", "recognise"]
