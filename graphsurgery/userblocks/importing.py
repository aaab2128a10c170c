"""PyTorch modules that may be imported.

The record of an insertion names its module, and importing it runs its code. A model file is not a reason to run code:
only what the user has named himself, in this process, is imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from ..errors import BlockError, MissingDependency

if TYPE_CHECKING:
    import torch

_allowed: set[str] = set()


def allow(spelled: str) -> None:
    """Let ``package.module:Class`` be imported from now on."""
    _allowed.add(spelled)


def recorded(spelled: str) -> type[torch.nn.Module]:
    """The class that the record of an insertion names. MissingDependency if it may not, or cannot, be imported."""
    if spelled not in _allowed:
        raise MissingDependency(
            f"{spelled} is a PyTorch module from outside the catalogue, and importing it runs its code; if it is "
            f"yours, say --trust {spelled}"
        )
    try:
        return load(spelled)
    except BlockError as error:
        raise MissingDependency(f"{error}; it is needed to compare the block with it") from None


def load(spelled: str) -> type[torch.nn.Module]:
    """The class. The current folder is looked into as well, as by ``python -m``. BlockError if it cannot be had."""
    module, _, name = spelled.partition(":")
    try:
        import torch
    except ImportError:
        raise MissingDependency(f'{spelled} needs torch: pip install "graphsurgery[torch]"') from None
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name)
    except AttributeError:
        raise BlockError(f"the module {module} has no {name}") from None
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(str(error).split())
        raise BlockError(f"{module} cannot be imported: {type(error).__name__}: {reason}") from None
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise BlockError(f"{spelled} is not a class of torch.nn.Module")
    return found
