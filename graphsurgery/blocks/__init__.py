"""What a block is, and which ones are installed."""

from __future__ import annotations

from .block import SATURATED, Block
from .setting import Setting

__all__ = ["SATURATED", "Block", "Setting"]
