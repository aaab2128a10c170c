"""Picture: the blocks of a model as a drawing, in SVG or HTML."""

from __future__ import annotations

from .svg import as_html, as_svg

__all__ = ["as_html", "as_svg"]
