"""Importing the PyTorch modules that a user names, and those that the record of an insertion names.

Importing a module runs its code, and a model file is no reason to run code: a module that a record names is imported
only where the caller trusts it. That trust ends with the call that it was given to.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..entry_points import ForeignError, foreign_code
from ..errors import BlockError, MissingDependency, concerning, option
from ..messages import one_line

if TYPE_CHECKING:
    import torch

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_module(spelled: str) -> bool:
    """Whether a block's name is that of a PyTorch module, ``package.module:Class``."""
    return _MODULE.fullmatch(spelled.strip()) is not None


@dataclass(frozen=True)
class Trust:
    """The PyTorch modules that one call may import, each as ``package.module:Class``; none by default."""

    modules: frozenset[str] = frozenset()

    @classmethod
    @concerning("trust")
    def in_modules(cls, names: str | Iterable[str]) -> Trust:
        """Trust in one module or several that the user lists. BlockError for a name that is not of that form."""
        modules = frozenset(name.strip() for name in ([names] if isinstance(names, str) else names))
        if wrong := next((name for name in sorted(modules) if not is_module(name)), None):
            raise BlockError(f"{wrong!r} does not name a PyTorch module; write it as in mypkg.blocks:MyAttention")
        return cls(modules)

    @classmethod
    @concerning("module")
    def in_blocks(cls, names: Iterable[str]) -> Trust:
        """Trust in the modules among the blocks that the user wants inserted. BlockError if one cannot be imported."""
        modules = frozenset(name.strip() for name in names if is_module(name))
        for name in modules:
            _load(name)
        return cls(modules)

    def load(self, name: str) -> type[torch.nn.Module]:
        """The class of that name. MissingDependency if it is not trusted, or cannot be imported."""
        if name not in self.modules:
            raise MissingDependency(
                f"{name} is a PyTorch module from outside the catalogue, and importing it runs its code; if it is "
                f"yours, use {option('trust', name)}"
            )
        try:
            return _load(name)
        except BlockError as error:
            raise MissingDependency(f"{error.message}; it is needed to compare the block with it") from None


NO_TRUST = Trust()


def named(spelled: str) -> object:
    """What ``package.module:name`` names. The current folder is searched as well, as by ``python -m``.

    BlockError if it cannot be imported, MissingDependency without torch.
    """
    module, _, name = spelled.partition(":")
    try:
        import torch  # noqa: F401 - which all that is named so needs
    except ImportError:
        raise MissingDependency(f'{spelled} needs torch: pip install "graphsurgery[torch]"') from None
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        with foreign_code():
            imported = importlib.import_module(module)
            found = getattr(imported, name, None)
    except ForeignError as error:
        raised = error.raised
        raise BlockError(f"{module} cannot be imported: {type(raised).__name__}: {one_line(raised)}") from None
    if found is None:
        raise BlockError(f"the module {module} has no {name}")
    return found


def _load(spelled: str) -> type[torch.nn.Module]:
    """The class of that name. BlockError if it cannot be imported, or is none of a PyTorch module."""
    found = named(spelled)
    import torch

    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise BlockError(f"{spelled} is not a class of torch.nn.Module")
    return found
