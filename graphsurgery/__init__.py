"""graphsurgery: put attention blocks into detectors that are already exported to ONNX, and prove that the result is
right.

>>> import graphsurgery as gsx
>>> model = gsx.insert("yolov8n.onnx", "simam", after="/model.8")   # doctest: +SKIP
>>> model.save("yolov8n-simam.onnx")                                # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path as _Path

from . import errors
from ._version import __version__
from .api import insert, remove, sites, verify
from .blocks.block import Block
from .errors import GraphSurgeryWarning
from .modelfile.model import ModelFile
from .recipe import Recipe

_HERE = _Path(__file__).parent

__all__ = [
    "Block",
    "GraphSurgeryWarning",
    "ModelFile",
    "Recipe",
    "__version__",
    "errors",
    "insert",
    "remove",
    "sites",
    "verify",
]

# In a checkout the catalogue lies beside this folder; installed, it lies in it.
if not (_HERE / "patterns").exists() and (_HERE.parent / "patterns" / "attention").is_dir():
    __path__.append(str(_HERE.parent))
