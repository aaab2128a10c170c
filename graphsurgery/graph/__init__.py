"""The graph of a model, read only: an index, shapes, module paths, quantisation, validity."""

from __future__ import annotations

from .index import GraphIndex
from .module_paths import ModuleTree
from .shapes import ShapeTable

__all__ = ["GraphIndex", "ModuleTree", "ShapeTable"]
