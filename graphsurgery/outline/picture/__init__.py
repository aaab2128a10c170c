"""Picture: the blocks of a model as a drawing, in SVG or HTML."""

from __future__ import annotations

from .svg import draw, page

__all__ = ["draw", "page"]
