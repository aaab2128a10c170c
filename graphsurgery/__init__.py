"""graphsurgery: put attention blocks into detectors that are already exported to ONNX, and prove that the result is
right.

>>> import graphsurgery as gsx
>>> model = gsx.insert("yolov8n.onnx", "simam", after="/model.8")   # doctest: +SKIP
>>> model.save("yolov8n-simam.onnx")                                # doctest: +SKIP

Importing the package imports nothing of it: each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib as _importlib
import os as _os
import sys as _sys
import types as _types

from ._version import __version__

TYPE_CHECKING = False  # as in typing, which takes 3 ms in which nothing catches signals yet
if TYPE_CHECKING:
    from . import errors
    from .api import Insertion, ModelFile, Sites, insert, remove, rewrite, sites
    from .bench import BenchReport, bench
    from .blocks import SATURATED, Array, Block, Setting, Variable
    from .cards import Card, block, blocks
    from .diff import Difference, diff
    from .errors import GraphSurgeryError, GraphSurgeryWarning
    from .feature_map import FeatureMap
    from .find import Found, find
    from .outline import Info, Outline, info, outline
    from .recipe import Recipe, adopt, apply
    from .recognition import Op, Part, Pattern, Value
    from .request import Request
    from .selection import Site
    from .sweep import Sweep, sweep
    from .template import Template
    from .tensorrt import Finding, TensorRTReport, check
    from .verification import Report, verify
    from .weights import TrainedBlocks
del TYPE_CHECKING

__all__ = ["GraphSurgeryError", "GraphSurgeryWarning", "__version__", "errors"]
__all__ += ["Sites", "adopt", "check", "insert", "remove", "rewrite", "sites", "verify"]
__all__ += ["SATURATED", "BenchReport", "Block", "Card", "Setting", "bench", "block", "blocks"]
__all__ += ["Difference", "FeatureMap", "Info", "Insertion", "ModelFile", "Outline", "diff", "info", "outline"]
__all__ += ["Pattern", "Recipe", "Report", "Request", "Site", "Template", "apply"]
__all__ += ["Array", "Finding", "Op", "Part", "TensorRTReport", "TrainedBlocks", "Value", "Variable"]
__all__ += ["Found", "Sweep", "find", "sweep"]

_HOMES = {
    "api": "Insertion ModelFile Sites insert remove rewrite sites",
    "bench": "BenchReport bench",
    "blocks": "SATURATED Array Block Setting Variable",
    "cards": "Card block blocks",
    "diff": "Difference diff",
    "errors": "GraphSurgeryError GraphSurgeryWarning",
    "feature_map": "FeatureMap",
    "find": "Found find",
    "outline": "Info Outline info outline",
    "recipe": "Recipe adopt apply",
    "recognition": "Op Part Pattern Value",
    "request": "Request",
    "selection": "Site",
    "sweep": "Sweep sweep",
    "template": "Template",
    "tensorrt": "Finding TensorRTReport check",
    "verification": "Report verify",
    "weights": "TrainedBlocks",
}
"""module -> the public names that are loaded from it"""


class _PublicName:
    """A public name as an attribute of the package: what it stands for is imported when it is first read.

    A data descriptor, because ``diff``, ``find``, ``bench`` and ``blocks`` are functions of the package and folders
    in it: whoever imports such a folder makes Python set the attribute to the folder.
    """

    def __init__(self, name: str, home: str) -> None:
        self._name = name
        self._home = home

    def __get__(self, package: _types.ModuleType | None, owner: type) -> object:
        if package is None:
            return self
        if self._name not in vars(package):
            home = _importlib.import_module(f"{__name__}.{self._home}")
            vars(package)[self._name] = getattr(home, self._name, home)
        return vars(package)[self._name]

    def __set__(self, package: _types.ModuleType, value: object) -> None:
        if not isinstance(value, _types.ModuleType):
            vars(package)[self._name] = value

    def __delete__(self, package: _types.ModuleType) -> None:
        vars(package).pop(self._name, None)


class _Package(_types.ModuleType):
    """The package as a module whose public names are loaded when they are used."""

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *__all__})


for _home, _names in (*_HOMES.items(), ("errors", "errors")):  # the last one: the module itself
    for _name in _names.split():
        globals().pop(_name, None)  # of before a reload
        setattr(_Package, _name, _PublicName(_name, _home))
_sys.modules[__name__].__class__ = _Package

# In a checkout the catalogue lies beside this folder; installed, it lies in it.
_here = _os.path.dirname(_os.path.abspath(__file__))
_beside = _os.path.dirname(_here)
if not _os.path.exists(_os.path.join(_here, "patterns")) and _os.path.isdir(
    _os.path.join(_beside, "patterns", "attention")
):
    __path__.append(_beside)
