"""Before Ultralytics unpickles a checkpoint with attached blocks: what it needs is here, and is allowed.

Where a module is missing, Ultralytics installs whatever package has its name, which anybody may have given to one. And
with ``ULTRALYTICS_SAFE_LOAD`` it loads only the classes that it knows.
"""

from __future__ import annotations

import importlib
import importlib.util
from _compat_pickle import IMPORT_MAPPING
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import MissingDependency, WeightsError
from ...weights import torch_file
from ..freezing import StaysInEval
from ..hooks import BlockHook

_OURS = "graphsurgery"


def prepare(path: Path) -> None:
    """Look at a checkpoint without loading it, and allow its classes of graphsurgery.

    MissingDependency if it has blocks of a package that is not installed; WeightsError if a newer graphsurgery wrote
    it. What is no checkpoint with blocks is left to Ultralytics.
    """
    if not path.is_file():
        return
    try:
        names = torch_file.named(path)
    except (WeightsError, ValueError):  # of which Ultralytics says what it is
        return
    own = {name for name in names if name.partition(".")[0] == _OURS}
    if not own:
        return
    classes = [_class(name, path.name) for name in sorted(own)]
    for name in sorted(names - own):
        package = name.partition(".")[0]
        package = IMPORT_MAPPING.get(package, package)  # torch's pickles have the names that Python 2 gave them
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"{path.name} needs {name}, and there is no package {package!r} here; install the one that it was "
                "trained with"
            )
    torch.serialization.add_safe_globals([each for each in classes if _is_safe(each)])


def _class(name: str, file: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        raise WeightsError(f"{file} was written by a newer graphsurgery: this one has no {name}") from None


def _is_safe(kind: Any) -> bool:
    """Whether what a pickle may do with a class is to make one of it and to set its attributes."""
    return isinstance(kind, type) and issubclass(kind, nn.Module | BlockHook | StaysInEval)
