"""The installed catalogues: modules behind an entry-point group, ours and those of other people's packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from .errors import BlockError

Kind = TypeVar("Kind")


def modules(group: str) -> Iterator[ModuleType]:
    """Every module of every installed catalogue of a group. BlockError if one of them cannot be loaded.

    An entry point names a module, or a package of which all modules are meant.
    """
    for entry in _entries(group):
        yield from _under(entry)


def module_of_the_only(group: str, name: str) -> ModuleType | None:
    """The module ``name`` right inside of a group's catalogue, if there is only one and it has that module."""
    entries = _entries(group)
    if len(entries) != 1 or not name.isidentifier():
        return None
    package = _loaded(entries[0])
    found = any(inner.name == name for inner in pkgutil.iter_modules(getattr(package, "__path__", [])))
    return _loaded(f"{entries[0]}.{name}") if found else None


def values(group: str, kind: type[Kind]) -> list[Kind]:
    """Module-level values of a type in the catalogues of a group, each once, in the order in which they are written."""
    found = (value for module in modules(group) for value in vars(module).values() if isinstance(value, kind))
    return list({id(value): value for value in found}.values())


def _entries(group: str) -> list[str]:
    return sorted({entry.value for entry in entry_points(group=group)})


def _loaded(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BlockError(f"the blocks of the installed package {name!r} cannot be loaded: {error}") from None


def _under(name: str) -> Iterator[ModuleType]:
    module = _loaded(name)
    yield module
    for inner in pkgutil.iter_modules(getattr(module, "__path__", [])):
        yield from _under(f"{name}.{inner.name}")
