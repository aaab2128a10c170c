"""The package safetensors, which is an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingDependency


def safetensors(part: str, what: str) -> Any:
    """Its module for ``"numpy"`` or ``"torch"``. MissingDependency, which says ``what`` needs it, where it is not
    installed.
    """
    try:
        return import_module(f"safetensors.{part}")
    except ImportError:
        hint = 'pip install "graphsurgery[weights]"'
        raise MissingDependency(f"{what} needs the package safetensors: {hint}") from None
