"""Picture: the blocks of a model as a drawing, in SVG, HTML, PNG or PDF."""

from __future__ import annotations

from .raster import rasterise
from .svg import draw, page

__all__ = ["draw", "page", "rasterise"]
