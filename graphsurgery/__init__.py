"""graphsurgery: put attention blocks into detectors that are already exported to ONNX, and prove that the result is
right.

>>> import graphsurgery as gsx
>>> model = gsx.insert("yolov8n.onnx", "simam", after="/model.8")   # doctest: +SKIP
>>> model.save("yolov8n-simam.onnx")                                # doctest: +SKIP
"""

from __future__ import annotations

from . import errors
from ._version import __version__
from .api import insert, remove, sites, verify
from .blocks.block import Block
from .errors import GraphSurgeryWarning
from .modelfile.model import ModelFile
from .recipe import Recipe

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
