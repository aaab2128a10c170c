"""The installed catalogues: modules behind an entry-point group, ours and those of other people's packages.

A module that cannot be loaded takes nothing with it but what is in it.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TypeVar

from .errors import GraphSurgeryWarning

Kind = TypeVar("Kind")
CATALOGUE = "graphsurgery.patterns"
"""both the package of the project's own catalogue and the entry-point group of blocks"""


@dataclass(frozen=True)
class Broken:
    """A module of a catalogue that is not to be had."""

    module: str
    package: str
    """the installed package that it belongs to"""
    reason: str
    lacks: bool = False
    """Whether that is because another module is not installed."""

    def __str__(self) -> str:
        return f"{self.module} of the installed package {self.package} cannot be loaded: {self.reason}"


@dataclass
class Catalogues:
    """All catalogues of a group."""

    modules: list[tuple[str, ModuleType]] = field(default_factory=list)
    """with the name of the installed package, in the order of their names"""
    broken: list[Broken] = field(default_factory=list)


def loaded(group: str) -> Catalogues:
    """Load every module of every installed catalogue of a group.

    An entry point names a module, or a package of which all modules are meant.
    """
    found = Catalogues()
    for name, package in _entries(group).items():
        _load_all(name, package, found)
    return found


def module_of_the_only(group: str, name: str) -> ModuleType | None:
    """The module ``name`` right inside of a group's catalogue, if there is only one and it has that module."""
    entries = _entries(group)
    if len(entries) != 1 or not name.isidentifier():
        return None
    (top,) = entries
    package = _module(top)
    if not any(inner.name == name for inner in pkgutil.iter_modules(getattr(package, "__path__", []))):
        return None
    module = _module(f"{top}.{name}")
    return module if isinstance(module, ModuleType) else None


def values(group: str, kind: type[Kind]) -> list[Kind]:
    """Module-level values of a type in the catalogues of a group, each once, in the order in which they are written.

    GraphSurgeryWarning for a module that cannot be loaded.
    """
    catalogues = loaded(group)
    tell(map(str, catalogues.broken))
    found = (value for _, module in catalogues.modules for value in vars(module).values() if isinstance(value, kind))
    return list({id(value): value for value in found}.values())


def tell(sentences: Iterable[str]) -> None:
    """Warn of what is wrong with an installed package."""
    for sentence in sentences:
        warnings.warn(sentence, GraphSurgeryWarning, stacklevel=3)


def reason(error: BaseException) -> str:
    """Why code of other people failed, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, ImportError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _entries(group: str) -> dict[str, str]:
    """What the entry points name, and the installed package that each belongs to."""
    entries = sorted(entry_points(group=group), key=lambda entry: entry.value)
    return {entry.value: _owner(entry) for entry in entries} or _of_a_checkout(group)


def _of_a_checkout(group: str) -> dict[str, str]:
    """The project's own catalogue where nothing is installed, so that a checkout works as it lies."""
    own: dict[str, str] = importlib.import_module(CATALOGUE).ENTRY_POINTS
    return {own[group]: "graphsurgery"} if group in own else {}


def _owner(entry: EntryPoint) -> str:
    """The name of an entry point's package; without metadata, that of the package to import."""
    name = entry.dist.name if entry.dist is not None else ""
    return name or entry.value.partition(":")[0].partition(".")[0]


def _load_all(name: str, package: str, found: Catalogues) -> None:
    module = _module(name)
    if isinstance(module, ModuleType):
        found.modules.append((package, module))
        for inner in pkgutil.iter_modules(getattr(module, "__path__", [])):
            _load_all(f"{name}.{inner.name}", package, found)
    else:
        found.broken.append(Broken(name, package, reason(module), isinstance(module, ModuleNotFoundError)))


def _module(name: str) -> ModuleType | BaseException:
    """A module, or why it cannot be imported. What it prints is no part of any result."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the code of other people raises
        return error
