"""graphsurgery: put attention blocks into detectors that are already exported to ONNX, and prove that the result is
right.

>>> import graphsurgery as gsx
>>> model = gsx.insert("yolov8n.onnx", "simam", after="/model.8")   # doctest: +SKIP
>>> model.save("yolov8n-simam.onnx")                                # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors
from ._version import __version__
from .block import Block
from .modelfile import ModelFile
from .surgery import insert, remove, sites, verify

if TYPE_CHECKING:
    from .recipe import Recipe

__all__ = ["Block", "ModelFile", "Recipe", "__version__", "errors", "insert", "remove", "sites", "verify"]


def __getattr__(name: str) -> object:
    """Recipe when it is asked for: an insertion from the command line needs none, and every import takes its time."""
    if name == "Recipe":
        from .recipe import Recipe

        return Recipe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
