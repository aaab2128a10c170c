"""Recognition: the blocks of a detector, found by structure."""

from __future__ import annotations

from .block import RecognisedBlock
from .blocktree import BlockTree, recognise
from .pattern import HeadPattern, Pattern

__all__ = ["BlockTree", "HeadPattern", "Pattern", "RecognisedBlock", "recognise"]
