"""What changed between two models."""

from __future__ import annotations

from .diff import Difference, diff

__all__ = ["Difference", "diff"]
