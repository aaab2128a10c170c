"""The block tree of a model with its sites, as rows and as a picture."""

from __future__ import annotations

from .info import Info, info
from .outline import Outline, outline

__all__ = ["Info", "Outline", "info", "outline"]
